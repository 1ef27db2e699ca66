package admin

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func env(of map[string]string) func(string) string {
	return func(name string) string { return of[name] }
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		uid  int
		want []string
	}{
		{map[string]string{"HANDOFF_RUNTIME_DIR": "/a", "RUNTIME_DIRECTORY": "/b", "XDG_RUNTIME_DIR": "/x"}, 7, []string{"/a"}},
		{map[string]string{"RUNTIME_DIRECTORY": "/b:/c", "XDG_RUNTIME_DIR": "/x"}, 7,
			[]string{"/b", "/x/handoff", "/tmp/handoff-7", "/run/user/7/handoff", "/dev/shm/handoff-7"}},
		{nil, 7, []string{"/tmp/handoff-7", "/run/user/7/handoff", "/dev/shm/handoff-7"}},
		{map[string]string{"RUNTIME_DIRECTORY": "/b", "XDG_RUNTIME_DIR": "/x"}, 0, []string{"/b", "/run/handoff", "/tmp/handoff-0", "/dev/shm/handoff-0"}},
	} {
		if got := places(env(c.env), c.uid); !slices.Equal(got, c.want) {
			t.Errorf("%v: %s, want %s", c.env, got, c.want)
		}
	}
}

// The folder must be this user's alone: who can write to it could put a socket there.
func TestUsable(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	os.WriteFile(at("file"), nil, 0o600)
	os.Mkdir(at("open"), 0)
	os.Chmod(at("open"), 0o777)
	os.Mkdir(at("mine"), 0o700)
	os.Symlink(at("mine"), at("link"))
	bad := []string{at("file"), at("file/below"), at("open"), at("link")}
	if os.Geteuid() == 0 {
		os.Mkdir(at("foreign"), 0o700)
		os.Chown(at("foreign"), 65534, 65534)
		bad = append(bad, at("foreign"))
	}
	_, err := usable(bad)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	for _, path := range bad {
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(path, "/below")) {
			t.Errorf("%s is not named: %v", path, err)
		}
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	got, err := usable(append(bad, at("new/run"), at("mine")))
	if err != nil || got != at("new/run") {
		t.Errorf("%s, %v", got, err)
	}
	want := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		want = 0o711 // workers of another user pass
	}
	if info, err := os.Stat(got); err != nil || info.Mode().Perm() != want {
		t.Errorf("%v, %v; want %v", info.Mode(), err, want)
	}
}

// A client looks in every place, but not where somebody else may have put a socket.
func TestWhere(t *testing.T) {
	dir := t.TempDir()
	xdg := map[string]string{"XDG_RUNTIME_DIR": dir}
	own, unit := filepath.Join(dir, "handoff"), filepath.Join(dir, "handoff/web")
	os.MkdirAll(unit, 0o700)
	uid := os.Geteuid()
	if uid == 0 {
		uid = 4321 // whose these are not, but root's
	}
	if got := where(env(xdg), uid); !slices.Contains(got, own) || !slices.Contains(got, unit) {
		t.Errorf("%v, want %s and %s", got, own, unit)
	}
	os.Chmod(own, 0o777)
	if got := where(env(xdg), uid); slices.Contains(got, own) {
		t.Errorf("%v: everybody can write to %s", got, own)
	}
	if os.Geteuid() == 0 {
		os.Chmod(own, 0o755)
		os.Chown(own, 65534, 65534)
		if got := where(env(xdg), uid); slices.Contains(got, own) {
			t.Errorf("%v: %s is another user's", got, own)
		}
	}
}

// inside runs a test of this name once more as root of a mount namespace that a script has
// changed, and tells whether this is it.
func inside(t *testing.T, script string) bool {
	t.Helper()
	if os.Getenv("ADMIN_TEST_INSIDE") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 || exec.Command("unshare", "-m", "true").Run() != nil {
		t.Skip("needs root, and a mount namespace")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-ec", script+`; exec "$0" -test.v -test.run "^$1\$"`, self, t.Name())
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "ADMIN_TEST_INSIDE=" + t.Name()}
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// What an older root's handoff has made is opened to units of other users.
func TestSharedDirIsMended(t *testing.T) {
	if !inside(t, "mount -t tmpfs -o mode=755 none /run; mkdir -m 700 /run/handoff; umask 077") {
		return
	}
	dir, err := Dir()
	if err != nil || dir != sharedDir {
		t.Fatalf("%s, %v", dir, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// A unit's folder, and what the unit's user finds.
	unit := sharedDir + "/web"
	if err := os.Mkdir(unit, 0o700); err != nil {
		t.Fatal(err)
	}
	os.Chown(unit, 4321, 4321)
	serveAs(t, 4321, unit)
	if names := Names(); !slices.Equal(names, []string{"web"}) {
		t.Errorf("the unit's user finds %v", names)
	}
}

// serveAs makes this process another user's, which serves the socket web in dir.
func serveAs(t *testing.T, uid int, dir string) {
	t.Helper()
	t.Helper()
	if err := syscall.Setgid(uid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setuid(uid); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", dir)
	l, err := Listen("web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	os.Unsetenv("RUNTIME_DIRECTORY")
}

// A user without a runtime folder, a root that is read-only: memory is left.
func TestReadOnlyRoot(t *testing.T) {
	if !inside(t, "mount -t tmpfs -o mode=1777 none /dev/shm; mount --bind /tmp /tmp; mount -o remount,bind,ro /tmp; mount -t tmpfs -o mode=755 none /run; mkdir /run/own; mount -t tmpfs -o ro,mode=700,uid=4321,gid=4321 none /run/own") {
		return
	}
	serveAs(t, 4321, "")
	if dir, err := usable([]string{"/run/own"}); err == nil { // from before it was read-only
		t.Errorf("%s can be used", dir)
	}
	dir, err := Dir()
	if err != nil || dir != "/dev/shm/handoff-4321" {
		t.Errorf("%s, %v", dir, err)
	}
	if names := Names(); !slices.Equal(names, []string{"web"}) {
		t.Errorf("found %v", names)
	}
	if c, err := Find(""); err != nil || c.Name != "web" {
		t.Errorf("%v, %v", c, err)
	}
}

// Who listens must be this user, root, or whose folder it is.
func TestStrangerListens(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir := runtimeDir(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "web.sock")}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { // ends at once, and its thread, which is another user's, with it
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- errno
			return
		}
		done <- unix.Listen(fd, 8) // whose credentials the client sees
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if names := Names(); len(names) > 0 {
		t.Errorf("%v is believed", names)
	}
	if c, err := Find("web"); err != nil {
		t.Error(err)
	} else if _, err := c.Status(); err == nil || !strings.Contains(err.Error(), "65534") {
		t.Errorf("%v", err)
	}
	os.Chown(dir, 65534, 65534)
	if names := Names(); !slices.Equal(names, []string{"web"}) {
		t.Errorf("%v: it is the folder's owner", names)
	}
}
