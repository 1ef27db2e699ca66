package linux

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Root writes where a path says, and nowhere that another user has made of it.
func TestOpenOutput(t *testing.T) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(MakeFolders(at("own/logs"), 0o755), MakeFolders(at("own/logs"), 0o755), os.Mkdir(at("secret"), 0o755), os.WriteFile(at("secret/file"), nil, 0o600),
		os.Symlink("own", at("link")), os.Symlink("../own/logs/new", at("own/new")), os.Symlink(at("nowhere/x"), at("own/dangling")))
	for _, path := range []string{at("own/f"), at("own/f"), at("link/logs/f"), at("own/new"), at("own/../own/./logs//g"), "/dev/null"} {
		f, err := OpenOutput(path, flags, 0o640)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if n, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); n&unix.O_NONBLOCK != 0 || err != nil {
			t.Error("not blocking")
		}
		f.Close()
	}
	if _, err := os.Stat(at("own/logs/new")); err != nil {
		t.Error(err)
	}
	read, write, err := os.Pipe()
	must(err)
	if f, err := OpenOutput("/proc/self/fd/"+itoa(int(write.Fd())), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	read.Close()
	write.Close()
	if _, err := OpenOutput(at("own/dangling"), flags, 0o640); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(unix.Mkfifo(at("own/fifo"), 0o600))
	if _, err := OpenOutput(at("own/fifo"), flags, 0o640); err == nil { // and does not wait
		t.Error("a pipe without a reader was opened")
	}
	if os.Geteuid() != 0 {
		return
	}

	// A folder of another user's.
	must(os.Mkdir(at("theirs"), 0o755), os.Mkdir(at("theirs/logs"), 0o755), os.Symlink(at("secret"), at("theirs/link")), os.Symlink(at("secret/file"), at("theirs/file.log")),
		os.Link(at("secret/file"), at("theirs/hard")), unix.Mkfifo(at("theirs/fifo"), 0o600), os.Symlink(at("secret"), at("theirs/roots")))
	for _, name := range []string{"", "logs", "link", "file.log", "fifo"} {
		must(os.Lchown(at("theirs/"+name), 65534, 65534))
	}
	reader, err := os.OpenFile(at("theirs/fifo"), os.O_RDWR, 0) // it would be opened at once
	must(err)
	defer reader.Close()
	for _, c := range []struct{ name, want string }{
		{"theirs/f", ""},
		{"theirs/roots/g", ""},
		{"theirs/link/f", "link is a link of user 65534"},
		{"theirs/file.log", "is a link of user 65534"},
		{"theirs/hard", "it has another hard link"},
		{"theirs/fifo", "not a file"},
	} {
		f, err := OpenOutput(at(c.name), flags, 0o640)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if f != nil {
			f.Close()
		}
	}
	if err := MakeFolders(at("theirs/link/new"), 0o755); err == nil || !strings.Contains(err.Error(), "is a link of user 65534") {
		t.Error(err)
	}
	if left, err := os.ReadDir(at("secret")); err != nil || len(left) != 2 { // file, and g through root's own link
		t.Error(left, err)
	}
}

func itoa(n int) string { return strings.TrimPrefix(proc(n), "/proc/") }

func TestRemoveFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Rename(path, path+".1")
	os.WriteFile(path, nil, 0o600)
	if err := RemoveFile(path, f); err == nil {
		t.Error("another file was removed")
	}
	os.Rename(path+".1", path)
	if err := RemoveFile(path, f); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// What another user has put into a folder that is everybody's is not written to, also where
// the kernel does not see to it (fs.protected_symlinks).
func TestOpenOutputPlanted(t *testing.T) {
	const me, other = 1000, 1001
	stat := func(uid, mode uint32) *unix.Stat_t { return &unix.Stat_t{Uid: uid, Mode: mode} }
	tmp, home, theirs := stat(0, 0o1777), stat(me, 0o755), stat(other, 0o777)
	for _, c := range []struct {
		what         string
		file, folder *unix.Stat_t
		want         bool
	}{
		{"own, in /tmp", stat(me, 0), tmp, true}, {"root's, in /tmp", stat(0, 0), tmp, true}, {"another's, in /tmp", stat(other, 0), tmp, false},
		{"a deployer's, in a folder of one's own", stat(other, 0), home, true}, {"theirs, in theirs", stat(other, 0), theirs, true},
	} {
		if got := notPlanted(me)(c.file, c.folder); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	dir, err := os.MkdirTemp("", "planted") // others may enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o1777)
	for _, name := range []string{"target", "theirs"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o666)
		os.Chmod(filepath.Join(dir, name), 0o666)
		os.Chown(filepath.Join(dir, name), other, other)
	}
	os.Symlink("target", filepath.Join(dir, "link"))
	os.Lchown(filepath.Join(dir, "link"), other, other)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestOpenOutputPlantedAsUser$")
	cmd.Env = append(os.Environ(), "PLANTED="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: me, Gid: me}}
	cmd.Dir = "/"
	if binary, err := os.ReadFile(os.Args[0]); err == nil { // its own folder is root's alone
		cmd.Path = filepath.Join(dir, "test")
		os.WriteFile(cmd.Path, binary, 0o755)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The other user's part of TestOpenOutputPlanted.
func TestOpenOutputPlantedAsUser(t *testing.T) {
	dir := os.Getenv("PLANTED")
	if dir == "" {
		t.Skip("TestOpenOutputPlanted starts it")
	}
	for name, want := range map[string]string{"new": "", "new2": "", "link": "link is a link of user 1001, in a directory", "theirs": "it belongs to user 1001"} {
		f, err := OpenOutput(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
	if f, err := OpenOutput("/dev/null", os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

// OpenSockets finds sockets in a process and in its children; what it may not see or is too
// much to look at counts as open.
func TestOpenSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	inode, other := stat.Ino, uint64(1)<<60
	is := func(what string, most int, want [2]bool) {
		t.Helper()
		if open := OpenSockets([]int{os.Getpid()}, []uint64{inode, other}, most); open[inode] != want[0] || open[other] != want[1] {
			t.Errorf("%s: %v", what, open)
		}
	}
	is("open", 4096, [2]bool{true, false})
	is("too much to look at", 1, [2]bool{true, true})
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{f}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	f.Close()
	is("in a child", 4096, [2]bool{true, false})
	child.Process.Kill()
	child.Wait()
	is("closed", 4096, [2]bool{false, false})
	if open := OpenSockets([]int{1 << 30}, []uint64{inode}, 4096); open[inode] {
		t.Error("a process that is not there has it")
	}
}

// OthersHave finds sockets in what has outlived its parent, and, as far as it may look, in any
// other process; not in the keeper.
func TestOthersHave(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	// run has a script run with the socket as descriptor 3, and returns when its last command
	// does.
	run := func(script string) int {
		c := exec.Command("sh", "-c", script)
		c.ExtraFiles = []*os.File{f}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, pid := range Children(c.Process.Pid) {
				if p, err := os.FindProcess(pid); err == nil {
					p.Kill()
				}
			}
			c.Process.Kill()
			c.Wait()
		})
		out.Read(make([]byte, 1))
		return c.Process.Pid
	}
	const enough = 1 << 20
	keeper := run("echo; exec sleep 60")
	l.Close()
	if OthersHave(stat.Ino, keeper, enough) {
		t.Error("the keeper and this process alone have it")
	}
	orphans := run("sleep 60 & (exec 3>&-; sleep 60) & echo; wait")
	if !OthersHave(stat.Ino, orphans, enough) {
		t.Error("a child of the keeper has it")
	}
	if !OthersHave(stat.Ino, orphans, 1) {
		t.Error("a child may have it: there was more to look at")
	}
	if !OthersHave(stat.Ino, keeper, enough) {
		t.Error("a process that is none of the keeper's has it")
	}
	if OthersHave(stat.Ino, keeper, 1) {
		t.Error("more was looked at than may be")
	}
}
