package listeners

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A path has its mode, whatever the umask is, when it appears. Whoever can write to its
// folder, and puts a link in its place at the wrong instant, has nothing else changed.
func TestModeAndOwnerAreOfTheSocketAlone(t *testing.T) {
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "s")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, file, err := bindUnix(path, &pathMode{0o666, os.Getuid(), -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 || file == (FileID{}) {
		t.Error(info.Mode(), err, file)
	}
	unix.Close(fd)
	os.Remove(path)

	uid := -1
	if os.Getuid() == 0 {
		uid = 65534
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // until stop
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Remove(path) == nil {
				os.Symlink("secret", path)
			}
		}
	}()
	for range 500 {
		if fd, _, err := bindUnix(path, &pathMode{0o666, uid, -1}, nil); err == nil {
			unix.Close(fd)
		}
		os.Remove(path)
	}
	close(stop)
	<-ended
	var st unix.Stat_t
	if err := unix.Stat(secret, &st); err != nil || st.Mode&0o777 != 0o600 || int(st.Uid) != os.Getuid() {
		t.Errorf("a file of handoff's user has mode %o and user %d now, %v", st.Mode&0o777, st.Uid, err)
	}
}

// What workers of another user ask for is judged by that user's rights.
func TestWorkersGetWhatTheirUserCould(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "permit") // t.TempDir is below a folder of mode 0700
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	roots, theirs := filepath.Join(dir, "root"), filepath.Join(dir, "theirs")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(roots, 0o755), os.Mkdir(theirs, 0o700), os.Chown(theirs, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := start(t, Config{User: &linux.User{UID: nobody, GID: nobody}})
	left := filepath.Join(roots, "left") // a server of root's that was killed
	fd, _, err := bindUnix(left, &pathMode{0, -1, -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	for _, path := range []string{filepath.Join(roots, "s"), left} {
		if a, err := w.Open(Endpoint{Family: Unix, Addr: path}); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: %v, %v", path, a, err)
		}
	}
	if _, err := os.Lstat(left); err != nil {
		t.Error("a socket of root's was removed:", err)
	}
	path := filepath.Join(theirs, "s")
	if _, err := w.Open(Endpoint{Family: Unix, Addr: path}); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != nobody || st.Gid != nobody {
		t.Error(st.Uid, st.Gid, err)
	}
	if _, err := w.Preopen(Listen{Path: filepath.Join(roots, "given"), UID: -1, GID: -1}); err != nil { // root says so itself
		t.Error(err)
	}
}

func TestPrivilegedPortsAreAllowedByName(t *testing.T) {
	if os.Geteuid() != 0 || linux.UnprivilegedPort() < 1024 {
		t.Skip("needs root, and ports below 1024 that are root's")
	}
	at := func(port int) Endpoint { return Endpoint{Family: IPv4, Addr: "127.0.0.1", Port: port} }
	udp := at(1021)
	udp.Type = Datagram
	w := start(t, Config{User: &linux.User{UID: 65534, GID: 65534}, Allowed: func(a netip.AddrPort) bool { return a.Port() == 1022 }})
	for _, e := range []Endpoint{at(1021), udp, {Any: true, Family: IPv6, Port: 1021}} {
		if _, err := w.Open(e); !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "--allow 1021") {
			t.Errorf("%+v: %v", e, err)
		}
	}
	for _, e := range []Endpoint{at(1022), at(0)} {
		if _, err := w.Open(e); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if _, err := w.Preopen(Listen{Addr: netip.MustParseAddrPort("127.0.0.1:1023"), UID: -1, GID: -1}); err != nil {
		t.Error(err)
	}
	if l, err := w.Lease(1, 0, at(1023), nil); err != nil || l == nil { // what root has opened is there for who asks
		t.Error(err)
	}
	w.SetUser(nil, nil)
	if _, err := w.Open(at(1021)); err != nil {
		t.Error(err)
	}
}
