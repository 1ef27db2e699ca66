package linux

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What another user has put in the place of a file is not waited for, and takes no memory.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/dev/ptmx", at("terminal"))
	os.Symlink("/dev/zero", at("zero"))
	os.Symlink("/dev/null", at("null"))
	os.WriteFile(at("five"), []byte("12345"), 0o600)
	os.WriteFile(at("huge"), nil, 0o600)
	os.Truncate(at("huge"), 1<<40)
	if pts, err := terminalPath(t); err == nil { // a terminal's reader waits
		os.Symlink(pts, at("mine"))
	}
	for name, want := range map[string]string{"fifo": "not a file", "terminal": "not a file", "zero": "not a file", "mine": "not a file", ".": "not a file", "five": "larger than 4 bytes", "huge": "larger than 4 bytes", "none": "no such file"} {
		if b, err := ReadFile(at(name), 4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	for name, want := range map[string]string{"null": "", "five": "12345"} {
		if b, err := ReadFile(at(name), 5); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// terminalPath opens a terminal for a test, and returns its path.
func terminalPath(t *testing.T) (path string, err error) {
	master, slave, err := OpenPTY()
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(slave.Fd())))
}
