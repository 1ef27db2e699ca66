package node

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The workers' user can read the preload, whatever the umask is.
func TestInstallForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	base, err := os.MkdirTemp("", "state")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	os.Chmod(base, 0o755)
	closed := filepath.Join(base, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"STATE_DIRECTORY", "CACHE_DIRECTORY"} {
		t.Setenv(name, "")
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)

	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(base, "fresh/state"))
	path, err := Install(65534)
	if err != nil || !strings.HasPrefix(path, base) {
		t.Fatalf("%s, %v", path, err)
	}
	if err := readAs(65534, path); err != nil {
		t.Error(err)
	}
	// What is closed to them is no place for it.
	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(closed, "state"))
	t.Setenv("STATE_DIRECTORY", filepath.Join(base, "second"))
	if path, err = Install(65534); err != nil || filepath.Dir(path) != filepath.Join(base, "second") {
		t.Errorf("%s, %v", path, err)
	}
	if path, err = Install(0); err != nil || filepath.Dir(path) != filepath.Join(closed, "state") {
		t.Errorf("%s, %v", path, err)
	}
}

func readAs(uid int, path string) error {
	done := make(chan error)
	go func() { // ends at once, and its thread, which is another user's, with it
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- errno
			return
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		done <- err
	}()
	return <-done
}

// Who could exchange the folder of the preload could have workers load something else.
func TestInstallWhereOthersCannotExchangeIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	theirs, own := t.TempDir(), t.TempDir()
	os.Chown(theirs, 65534, 65534)
	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(theirs, "state"))
	t.Setenv("STATE_DIRECTORY", own)
	if path, err := Install(0); err != nil || filepath.Dir(path) != own {
		t.Errorf("%s, %v", path, err)
	}
}
