package pidfile

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
