package admin

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"web", "Web-1_2.x", strings.Repeat("a", 64)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".web", "../web", "a/b", "a b", "ä", strings.Repeat("a", 65)} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// A socket that nobody serves is replaced; where a service answers, the second one of
// the same name has its pid in its own.
func TestListen(t *testing.T) {
	dir := runtimeDir(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "web.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	start(t, "web")
	l, err := Listen("web")
	if err != nil {
		t.Fatal(err)
	}
	second := "web-" + strconv.Itoa(os.Getpid())
	serveOn(t, l, second)
	if names := Names(); !slices.Equal(names, []string{"web", second}) {
		t.Errorf("%v", names)
	}
	for _, name := range []string{"web", second} {
		if info, err := os.Stat(filepath.Join(dir, name+".sock")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if _, err := Listen("web"); err == nil {
		t.Error("three of one name and pid")
	}
}

// Another user is not answered, even if the socket's mode lets them connect.
func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir := runtimeDir(t)
	start(t, "web")
	path := filepath.Join(dir, "web.sock")
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	os.Chmod(path, 0o666)
	for uid, want := range map[int]string{0: "HTTP/1.0 200 OK", 65534: ""} {
		if got, err := askAs(uid, path); err != nil || got != want {
			t.Errorf("uid %d is told %q, %v; want %q", uid, got, err, want)
		}
	}
}

// askAs asks for the status as another user, and returns the first line of the answer.
func askAs(uid int, path string) (line string, err error) {
	done := make(chan struct{})
	go func() { // ends when it is answered, and its thread, which is another user's, with it
		defer close(done)
		runtime.LockOSThread()
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 { // of this thread
			err = errno
			return
		}
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return
		}
		io.WriteString(f, "GET /v1/status HTTP/1.0\r\n\r\n") // refused: it may be closed already
		b, rerr := io.ReadAll(f)
		if !errors.Is(rerr, unix.ECONNRESET) {
			err = rerr
		}
		line, _, _ = strings.Cut(string(b), "\r\n")
	}()
	<-done
	return line, err
}
