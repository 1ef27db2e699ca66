package linux

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is done as another user has that one's rights, and changes nothing here.
func TestAs(t *testing.T) {
	before := unix.Umask(0o022)
	defer unix.Umask(before)
	if err := As(nil, func() error { unix.Umask(0); return os.Chdir("/") }); err != nil {
		t.Fatal(err)
	}
	if mask := unix.Umask(0o022); mask != 0o022 {
		t.Errorf("the umask is %o now", mask)
	}
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
