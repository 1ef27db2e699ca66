package listeners

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unixAt binds a socket at a path, as a worker does.
func unixAt(t *testing.T, path string) (fd int, file FileID, made Access) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Lstat(path, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd, FileID{st.Dev, st.Ino}, Access{int(st.Mode & 0o7777), int(st.Uid), int(st.Gid)}
}

// A path leads to the socket of the generation that is steered to, and back; with the mode
// that somebody has given it. A worker is not quiet while a connection waits in its queue.
func TestPathIsSteered(t *testing.T) {
	table, a, path := pathOfWorker(t)
	dir := filepath.Dir(path)
	old, _ := a.SocketFor(1)
	take := func(id Worker, inode uint64) {
		l, err := a.TakeSocket(id, 0, inode)
		if err != nil {
			t.Fatal(err)
		}
		l.Listening()
	}
	take(1, old)
	os.Chmod(path, 0o666)
	if n, _ := a.SocketFor(2); n != 0 {
		t.Fatal("the next generation has a socket already")
	}
	name := BesideName("s", 7)
	fd, file, made := unixAt(t, filepath.Join(dir, name))
	if err := a.AddBeside(fd, 2, name, file, made); err != nil {
		t.Fatal(err)
	}
	fresh, _ := a.SocketFor(2)
	take(2, fresh)

	reached := func() uint64 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for inode, fd := range map[uint64]int{old: a.descriptor(old), fresh: a.descriptor(fresh)} {
			if readable(fd) {
				n, _, err := unix.Accept(fd)
				if err == nil {
					unix.Close(n)
				}
				return inode
			}
		}
		return 0
	}
	steer := func(ids ...Worker) {
		table.SetTargets(ids)
		if err := table.Steer(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		target Worker
		want   uint64
	}{{1, old}, {2, fresh}, {1, old}, {2, fresh}} {
		steer(c.target)
		if got := reached(); got != c.want {
			t.Errorf("steered to %d: socket %d, want %d", c.target, got, c.want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("%v, %v", info, err)
		}
	}

	steer(1)
	c, err := net.Dial("unix", path) // and nobody accepts it yet
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	steer(2)
	now := time.Now()
	q := &pathQuiet{s: a.kind.(*shared), inode: old, grace: time.Second}
	if quiet, _ := q.Look(now.Add(time.Hour)); quiet {
		t.Error("quiet with a connection in the queue")
	}
	if n, _, err := unix.Accept(a.descriptor(old)); err == nil {
		unix.Close(n)
	}
	if quiet, _ := q.Look(now.Add(2 * time.Hour)); !quiet {
		t.Error("not quiet")
	}

	// What the record has is enough for another master, also if it was killed after the names
	// were exchanged.
	state, kept := table.State(), map[string]int{}
	table.Kept(func(name string, fd int) { kept[name], _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) })
	unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(dir, name), unix.RENAME_EXCHANGE)
	next, err := New(Config{Store: noStore{}})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if lost := next.Restore(state, func(name string) int {
		if fd, ok := kept[name]; ok {
			return fd
		}
		return -1
	}); len(lost) > 0 {
		t.Fatal(lost[0])
	}
	if b := next.Addresses()[0]; b.Inode() != old || len(b.leases) != 2 || b.leases[1].FD() != b.descriptor(fresh) {
		t.Errorf("the path leads to %d, want %d", b.Inode(), old)
	}
	unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(dir, name), unix.RENAME_EXCHANGE)
	table.ReleaseAll(1, now)
	if list, _ := os.ReadDir(dir); len(list) != 1 || list[0].Name() != "s" {
		t.Errorf("files %v", list)
	}
}

// descriptor is of one of its sockets.
func (a *Address) descriptor(inode uint64) int {
	l := Lease{unix: inode, fd: a.FD()}
	a.kind.(*shared).point(&l)
	return l.fd
}

// What waits in a socket whose workers have all ended is for the next generation.
func TestSocketOfAGoneGeneration(t *testing.T) {
	table, a, _ := pathOfWorker(t)
	old, _ := a.SocketFor(1)
	if _, err := a.TakeSocket(1, 0, old); err != nil {
		t.Fatal(err)
	}
	if n, _ := a.SocketFor(2); n != 0 {
		t.Error("the next generation has the socket of one that runs")
	}
	table.ReleaseAll(1, time.Now())
	if n, _ := a.SocketFor(2); n != old {
		t.Error("the socket of the generation that has ended waits for nobody")
	}
	if _, err := a.TakeSocket(2, 0, old); err != nil {
		t.Fatal(err)
	}
	if n, _ := a.SocketFor(1); n != 0 {
		t.Error("it is the new generation's now")
	}
}

// What a worker has closed by itself is released, of every kind.
func TestReleaseClosedPath(t *testing.T) {
	table, a, _ := pathOfWorker(t)
	inode, _ := a.SocketFor(1)
	if _, err := a.TakeSocket(1, 0, inode); err != nil {
		t.Fatal(err)
	}
	if table.ReleaseClosed(1, func(uint64) bool { return true }, time.Now()) {
		t.Error("an open one is released")
	}
	if !table.ReleaseClosed(1, func(uint64) bool { return false }, time.Now()) || table.Count(1) != 0 {
		t.Error("a closed one is kept")
	}
}

// pathOfWorker is a path that a worker of generation 1 has bound, in a table of its own.
func pathOfWorker(t *testing.T) (*Table, *Address, string) {
	t.Helper()
	table, err := New(Config{Store: noStore{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	path := filepath.Join(t.TempDir(), "s")
	fd, file, made := unixAt(t, path)
	folder, _ := unix.Open(filepath.Dir(path), unix.O_PATH, 0)
	a, err := table.AdoptUnix(Bound{FD: fd, Gen: 1, Place: placeOf(path), File: file, Path: path, Folder: folder, Made: made})
	if err != nil {
		t.Fatal(err)
	}
	return table, a, path
}

// The path is the address's wherever its file is renamed to: the next generation's takes its
// place in that folder.
func TestMovedPathIsSteered(t *testing.T) {
	table, a, path := pathOfWorker(t)
	to := filepath.Join(filepath.Dir(path), "d")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	take := func(id Worker, gen int) {
		inode, _ := a.SocketFor(gen)
		l, err := a.TakeSocket(id, 0, inode)
		if err != nil {
			t.Fatal(err)
		}
		l.Listening()
	}
	take(1, 1)
	add := func(folder string, inode uint64, gen int) {
		name := BesideName("s", inode)
		fd, file, made := unixAt(t, filepath.Join(folder, name))
		if err := a.AddBeside(fd, gen, name, file, made); err != nil {
			t.Fatal(err)
		}
	}
	add(filepath.Dir(path), 7, 2)
	take(2, 2)
	folder, err := unix.Open(to, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	path, old := filepath.Join(to, "s"), path
	a.Moved(placeOf(path), path, folder)
	if err := os.Rename(old, path); err != nil {
		t.Fatal(err)
	}
	add(to, 8, 3)
	take(3, 3)
	os.WriteFile(old, nil, 0o600) // another file there is none of the address's
	for id := Worker(3); id > 0; id-- {
		table.SetTargets([]Worker{id})
		if err := table.Steer(); err != nil {
			t.Fatal(err)
		}
		if !a.InPlace() {
			t.Errorf("the path does not lead to the socket of worker %d", id)
		}
	}
}

// A path that handoff was told to open has a socket for each generation: the same to who asks
// for its address, mode and owner. It is removed in the end, whichever is there.
func TestPreopenedPathIsSteered(t *testing.T) {
	w := start(t, Config{})
	path := filepath.Join(t.TempDir(), "s")
	a, err := w.Preopen(Listen{Path: path, Mode: 0o640, UID: os.Getuid(), GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	took := map[Worker]*Lease{}
	for id, gen := range []int{1, 1, 2, 2} {
		leases, _, err := w.TakePreopened(Worker(id+1), id%2, gen)
		if err != nil {
			t.Fatal(err)
		}
		took[Worker(id+1)] = leases[0]
	}
	if took[1].inode() != took[2].inode() || took[3].inode() != took[4].inode() || took[1].inode() == took[3].inode() {
		t.Fatal("not a socket for each generation")
	}
	if sa, err := unix.Getsockname(took[3].FD()); err != nil || sa.(*unix.SockaddrUnix).Name != path {
		t.Error(sa, err)
	}
	for _, id := range []Worker{1, 3} {
		w.SetTargets([]Worker{id, id + 1})
		if err := w.Steer(); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !readable(took[id].FD()) {
			t.Errorf("the connection is not worker %d's", id)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Error(info, err)
		}
	}
	w.ReleaseAll(1, w.now)
	w.ReleaseAll(2, w.now)
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 || a.Inode() != took[3].inode() {
		t.Errorf("%v is left", files)
	}
	w.CloseAll()
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 0 {
		t.Errorf("%v is left in the end", files)
	}
}
