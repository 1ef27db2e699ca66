package pidfile

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A second instance is refused, and takes nothing away; what a killed one has left is
// overwritten.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.pid")
	os.WriteFile(path, []byte("123456789 left behind\n"), 0o644)
	remove, err := Write(path)
	if err != nil {
		t.Fatal(err)
	}
	own := strconv.Itoa(os.Getpid())
	if b, _ := os.ReadFile(path); string(b) != own+"\n" {
		t.Errorf("%q", b)
	}
	if _, err := Write(path); err == nil || !strings.Contains(err.Error(), "process "+own+" has it") {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != own+"\n" {
		t.Errorf("the second one has written %q", b)
	}
	remove()
	if _, err := os.Stat(path); err == nil {
		t.Error("it is still there")
	}
	if remove, err = Write(path); err != nil {
		t.Fatal(err)
	}
	remove()
	if _, err := Write(filepath.Join(path, "x")); err == nil || !strings.HasPrefix(err.Error(), "cannot write the pid file: ") {
		t.Error(err)
	}
}

// What another user has put there is not written to, and what cannot be written is not
// left empty.
func TestWriteElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "web.pid")
	os.WriteFile(secret, []byte("secret"), 0o600)
	os.Symlink("secret", path)
	os.Lchown(path, 65534, 65534)
	if _, err := Write(path); err == nil || !strings.Contains(err.Error(), "is a link of user 65534") {
		t.Error(err)
	}
	if b, err := os.ReadFile(secret); string(b) != "secret" {
		t.Errorf("%q %v", b, err)
	}
}

// Everybody may read a pid file, and so lock it: this refuses nobody a start, whether the
// process that has locked it lives, or has left the lock to a child.
func TestLockOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "pidfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "web.pid")
	for _, c := range []struct {
		uid     uint32
		leaves  bool
		refused bool
	}{{65534, false, false}, {65534, true, false}, {0, false, true}} {
		os.WriteFile(path, []byte("123456789\n"), 0o644)
		cmd := exec.Command("flock", path, "sh", "-c", "echo locked; exec sleep 60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
			t.Fatal(line, err)
		}
		if c.leaves {
			cmd.Process.Kill()
			cmd.Process.Wait()
		}
		remove, err := Write(path)
		if (err != nil) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			b, _ := os.ReadFile(path)
			info, err := os.Stat(path)
			if string(b) != strconv.Itoa(os.Getpid())+"\n" || err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("%q, %v, %v", b, info.Mode(), err)
			}
			if _, err := Write(path); err == nil {
				t.Error("a second one is not refused")
			}
			remove()
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}
}
