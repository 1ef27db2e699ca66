package linux

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What is done as another user has that one's rights, and changes nothing here.
func TestAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() error { _, err := os.ReadFile(secret); return err }
	for range 10 {
		if err := As(&User{UID: 65534, GID: 65534}, read); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		if err := errors.Join(read(), As(nil, read)); err != nil {
			t.Error(err)
		}
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); n != 1 || err != nil {
		t.Error("dumpable:", n, err)
	}
}

func TestUnmapped(t *testing.T) {
	if os.Getenv("HANDOFF_USERNS") == "" {
		if Unmapped(0) || Unmapped(1000) {
			t.Error("users of this namespace")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestUnmapped$", "-test.v")
		cmd.Env = append(os.Environ(), "HANDOFF_USERNS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65533, Size: 1}}}
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Skipf("no namespaces here: %v", err)
		}
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	if !Unmapped(65534) || Unmapped(0) {
		t.Error("in a namespace:", Unmapped(65534), Unmapped(0))
	}
}
