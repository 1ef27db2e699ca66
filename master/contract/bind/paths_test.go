package bind

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/master/listeners"
)

// pathCall is a call about a path; what is continued is executed here.
func pathCall(t *testing.T, fd int, path string) *fake {
	f := &fake{given: -1, r: bindintercept.Request{PID: os.Getpid(), TGID: os.Getpid(), FD: fd, Kind: bindintercept.Unix, Inode: inode(fd)}}
	f.r.Spot = spotOf(t, path)
	return f
}

func spotOf(t *testing.T, path string) (s bindintercept.Spot) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	s.Place, s.Path = bindintercept.Place{Dev: st.Dev, Ino: st.Ino, Name: filepath.Base(path)}, path
	if unix.Lstat(path, &st) != nil {
		s.Free = true
	} else if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		s.File = bindintercept.File{Dev: st.Dev, Ino: st.Ino}
	}
	return s
}

func (s *Session) bindPath(t *testing.T, fd int, path string) string {
	end := s.call(pathCall(t, fd, path))
	if end == "continued" {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			end += " " + unix.ErrnoName(err.(unix.Errno))
		}
	}
	return end
}

func (s *Session) listenPath(t *testing.T, fd int, path string) string {
	f := pathCall(t, fd, path)
	if f.r.Listen = true; s.seats[f.r.Inode] != nil {
		f.r.Spot = bindintercept.Spot{} // it has no name, as the kernel knows
	}
	end := s.call(f)
	if end == "continued" {
		if err := unix.Listen(fd, 5); err != nil {
			end += " " + unix.ErrnoName(err.(unix.Errno))
		}
	}
	return end
}

func (s *Session) unlinkPath(t *testing.T, path string) string {
	f := pathCall(t, 0, path)
	f.r.Op = bindintercept.Unlink
	return s.call(f)
}

func unixSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func wants(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

// A path that is named by the pid of its process is its own: the next generation has another, and is
// not to wait for this one.
func TestPathOfOneProcess(t *testing.T) {
	w := start(t)
	s := w.session(1, 0)
	path := filepath.Join(t.TempDir(), strconv.Itoa(os.Getpid())+".pipe")
	fd := unixSocket(t)
	wants(t, "bind", s.bindPath(t, fd, path), "continued")
	wants(t, "listen", s.listenPath(t, fd, path), "continued")
	if n := w.Table.Count(1); n != 0 {
		t.Errorf("%d addresses are held", n)
	}
	for name, is := range map[string]bool{"tsx-4321.sock": true, "43211.sock": false, "a.4321": true, "a": false} {
		if hasPID(name, 4321) != is {
			t.Errorf("%s: %v", name, !is)
		}
	}
	if hasPID("web-7.sock", 7) {
		t.Error("a small number is taken for a pid")
	}
}

// The first worker makes the file; the next one removes it, binds and listens as it likes,
// and connections arrive all the while. At a stop the file is the program's to remove.
func TestPath(t *testing.T) {
	w := start(t)
	path := filepath.Join(t.TempDir(), "s")
	first, second := w.session(1, 0), w.session(2, 0)
	fd, next := unixSocket(t), unixSocket(t)
	wants(t, "first bind", first.bindPath(t, fd, path), "continued")
	wants(t, "its own unlink, before it listens", first.unlinkPath(t, path), "continued") // not done here
	wants(t, "first listen", first.listenPath(t, fd, path), "continued")
	before := spotOf(t, path).File
	connect := func(when string) {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		c.Close()
	}
	connect("one listens")
	wants(t, "another bind of the same worker", first.bindPath(t, unixSocket(t), path), "continued EADDRINUSE")
	wants(t, "unlink", second.unlinkPath(t, path), "answered")
	wants(t, "second bind", second.bindPath(t, next, path), "answered")
	wants(t, "a bind of the same socket", second.bindPath(t, next, path), "answered EINVAL")
	connect("the next one has bound")
	wants(t, "second listen", second.listenPath(t, next, path), "continued")
	wants(t, "unlink by the first, at its exit", first.unlinkPath(t, path), "answered")
	first.End()
	w.Table.ReleaseAll(1, time.Now())
	unix.Close(fd)
	connect("the first has gone")
	if after := spotOf(t, path).File; after != before || inode(next) != w.Table.Addresses()[0].Inode() {
		t.Errorf("file %v, before %v", after, before)
	}
	w.Stops = true
	wants(t, "unlink at a stop", second.unlinkPath(t, path), "continued")
	wants(t, "unlink by who is late", second.unlinkPath(t, path), "answered")
}

// Two start at once: who comes second waits until it is known what the first one makes of the
// path.
func TestPathPromised(t *testing.T) {
	w := start(t)
	path := filepath.Join(t.TempDir(), "s")
	first, second := w.session(1, 0), w.session(2, 1)
	fd, next := unixSocket(t), unixSocket(t)
	wants(t, "first bind", first.bindPath(t, fd, path), "continued")
	wants(t, "unlink of what is promised", second.unlinkPath(t, path), "answered")
	waits := pathCall(t, next, path)
	wants(t, "second bind", second.call(waits), "")
	wants(t, "first listen", first.listenPath(t, fd, path), "continued")
	if len(waits.ends) != 1 || waits.ends[0] != "answered" {
		t.Errorf("the second bind: %v", waits.ends)
	}
	wants(t, "second listen", second.listenPath(t, next, path), "continued")
	if inode(fd) != inode(next) {
		t.Error("they have two sockets")
	}
}

// Two remove the stale file of a killed server before they bind: none of them removes what the
// other has bound, however late its unlink is executed, or was looked at.
func TestPathRemovedByTwo(t *testing.T) {
	w := start(t)
	path := filepath.Join(t.TempDir(), "s")
	stale := unixSocket(t)
	if err := unix.Bind(stale, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	first, second := w.session(1, 0), w.session(2, 1)
	unlink := func() *fake {
		f := pathCall(t, 0, path)
		f.r.Op, f.r.Unheld = bindintercept.Unlink, true
		return f
	}
	slow, late := unlink(), unlink()
	wants(t, "an unlink", second.call(slow), "")
	bind := pathCall(t, unixSocket(t), path)
	wants(t, "a bind meanwhile", first.call(bind), "")
	os.Remove(path)
	slow.then()
	w.Until("the bind goes on", func() bool { return len(bind.ends) > 0 })
	if err := unix.Bind(bind.r.FD, &unix.SockaddrUnix{Name: path}); err != nil || bind.ends[0] != "continued" {
		t.Fatal(bind.ends, err)
	}
	wants(t, "an unlink that comes late", second.call(late), "answered")
	wants(t, "listen", first.listenPath(t, bind.r.FD, path), "continued")
	wants(t, "an unlink that comes later", second.call(late), "answered")
	if late.then != nil {
		t.Error("the new file was removed")
	}
}

// A socket that is renamed into place (HAProxy) does not take the place of one that serves;
// and a file that somebody has removed is made again.
func TestPathRenamed(t *testing.T) {
	w := start(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first, second := w.session(1, 0), w.session(2, 0)
	rename := func(s *Session, fd int, from string) string {
		f := pathCall(t, fd, from)
		f.r.Op, f.r.To = bindintercept.Rename, spotOf(t, path)
		end := s.call(f)
		if end == "continued" {
			os.Rename(from, path)
		}
		return end
	}
	fd, next := unixSocket(t), unixSocket(t)
	wants(t, "bind", first.bindPath(t, fd, path+".1"), "continued")
	wants(t, "rename", rename(first, fd, path+".1"), "continued")
	wants(t, "listen", first.listenPath(t, fd, path), "continued")
	wants(t, "second bind", second.bindPath(t, next, path+".2"), "continued")
	wants(t, "second rename", rename(second, next, path+".2"), "answered")
	wants(t, "second listen", second.listenPath(t, next, path), "continued")
	if inode(fd) != inode(next) {
		t.Error("they have two sockets")
	}
	os.Remove(path)
	third, fresh := w.session(3, 0), unixSocket(t)
	wants(t, "bind where the file is gone", third.bindPath(t, fresh, path), "continued")
	wants(t, "listen", third.listenPath(t, fresh, path), "continued")
	if a := w.Table.AtPlace(listeners.Place(spotOf(t, path).Place)); a == nil || a.Inode() != inode(fresh) {
		t.Error("the new file is not held")
	}
}
