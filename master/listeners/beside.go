package listeners

import (
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A path is steered by its name. Each generation has a socket of its own, whose file is
// beside the path, under another name, until it is put into service: then the two names
// change places, in one call (RENAME_EXCHANGE). Who connects reaches one or the other; what
// is in the queue of the old one is accepted by its workers, before they are told to go.

// beside is a socket to which the path does not lead: not yet, or no longer.
type beside struct {
	fd    int
	inode uint64
	gen   int
	file  FileID
	name  string // of the file, in the folder; "": it has none any more
	made  Access // how the file was made
}

// Access is who may connect to a socket: the mode and the owner of its file.
type Access struct {
	Mode int `json:"mode"`
	UID  int `json:"uid"`
	GID  int `json:"gid"`
}

// BesideName is the name of a file that is not at its path.
func BesideName(name string, inode uint64) string {
	const most = 255 - 32
	return "." + name[:min(len(name), most)] + ".handoff-" + strconv.FormatUint(inode, 36)
}

// SocketFor returns the socket of a unix address for a worker of a generation: 0 where that
// has none yet. A socket that was given at the start, or that no worker has made, is for all.
// One whose workers have all ended goes to the generation that asks, with the connections
// that wait in it.
func (a *Address) SocketFor(gen int) (inode uint64, fd int) {
	s, ok := a.kind.(*shared)
	if !ok {
		return 0, -1
	}
	if s.folder < 0 || s.gen == gen {
		return s.inode, s.fd
	}
	for _, b := range s.beside {
		if b.gen == gen {
			return b.inode, b.fd
		}
	}
	if !slices.ContainsFunc(a.leases, func(l *Lease) bool { return l.unix == s.inode }) {
		s.gen = gen
		return s.inode, s.fd
	}
	return 0, -1
}

// AddBeside adds a socket of a new generation, which is bound to a file of that name in the
// folder of the path. It owns fd, and listens on it.
func (a *Address) AddBeside(fd, gen int, name string, file FileID, made Access) error {
	s := a.kind.(*shared)
	if a.closed { // meanwhile: nobody wanted it
		unix.Close(fd)
		return unix.ENOENT
	}
	if err := unix.Listen(fd, -1); err != nil {
		unix.Close(fd)
		return err
	}
	b := beside{fd, inodeOf(fd), gen, file, name, made}
	s.beside = append(s.beside, b)
	s.store.Store(besideName(s.key, b.inode), fd)
	return nil
}

func besideName(key string, inode uint64) string {
	return sharedName(key) + "-" + strconv.FormatUint(inode, 10)
}

func folderName(key string) string { return "f" + key }

// TakeSocket is Take, of one of the sockets of a unix address.
func (a *Address) TakeSocket(id Worker, slot int, inode uint64) (*Lease, error) {
	l, err := a.Take(id, slot)
	if err == nil {
		l.unix = inode
		a.kind.(*shared).point(l)
	}
	return l, err
}

// user is whose rights count for the files of an address: handoff's own for one that it was
// told to open.
func (s *shared) user(workers *linux.User) *linux.User {
	if !s.workers {
		return nil
	}
	return workers
}

// point gives a lease the descriptor of its socket.
func (s *shared) point(l *Lease) {
	for _, b := range s.beside {
		if b.inode == l.unix {
			l.fd = b.fd
		}
	}
}

// steerPath puts that socket at the path that most targets accept from; of several, the
// newest.
func (a *Address) steerPath(targets []Worker, user *linux.User) error {
	s, ok := a.kind.(*shared)
	if !ok || len(s.beside) == 0 {
		return nil
	}
	count := map[uint64]int{}
	for _, l := range a.leases {
		if l.listening && slices.Contains(targets, l.worker) {
			count[l.unix]++
		}
	}
	best, gen, most := -1, s.gen, count[s.inode]
	for i, b := range s.beside {
		if n := count[b.inode]; b.name != "" && n > 0 && (n > most || n == most && b.gen > gen) {
			best, gen, most = i, b.gen, n
		}
	}
	if best < 0 {
		return nil
	}
	return linux.As(s.user(user), func() error { return s.exchange(&s.beside[best]) })
}

// exchange has the path lead to another socket.
func (s *shared) exchange(b *beside) error {
	var at, st unix.Stat_t
	err := unix.Fstatat(s.folder, s.place.Name, &at, unix.AT_SYMLINK_NOFOLLOW)
	if serr := unix.Fstatat(s.folder, b.name, &st, unix.AT_SYMLINK_NOFOLLOW); serr != nil {
		return os.NewSyscallError("stat of the new socket", serr)
	}
	left := b.name
	switch {
	case err == nil && (FileID{at.Dev, at.Ino}) == s.file:
		s.copyAccess(&at, &st, b)
		err = unix.Renameat2(s.folder, b.name, s.folder, s.place.Name, unix.RENAME_EXCHANGE)
		if err == unix.EINVAL || err == unix.ENOSYS { // a file system that cannot
			left, err = "", unix.Renameat(s.folder, b.name, s.folder, s.place.Name)
		}
	case err == unix.ENOENT: // somebody has removed it
		left, err = "", unix.Renameat(s.folder, b.name, s.folder, s.place.Name)
	case err == nil:
		err = unix.EEXIST
	}
	if err != nil {
		return os.NewSyscallError("put a new socket at "+s.label, err)
	}
	s.swap(b, left)
	return nil
}

// copyAccess: what somebody has changed of the file at the path since it was made is so of
// the new one, too; a worker that binds and calls chmod(2) has meant its own.
func (s *shared) copyAccess(at, st *unix.Stat_t, b *beside) {
	mode, uid, gid := at.Mode&0o7777, int(at.Uid), int(at.Gid)
	chmod, chown := int(mode) != s.made.Mode && mode != st.Mode&0o7777, uid != s.made.UID || gid != s.made.GID
	if !chmod && !chown {
		return
	}
	// Whoever can write to the folder may have put another file there.
	fd, err := unix.Openat(s.folder, b.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var is unix.Stat_t
	if unix.Fstat(fd, &is) != nil || (FileID{is.Dev, is.Ino}) != b.file {
		return
	}
	if chmod {
		unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
		b.made.Mode = -1 // so that it goes on
	}
	if chown {
		unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
		b.made.UID = -1
	}
}

// swap records that the path leads to b; the file of the other has the name left.
func (s *shared) swap(b *beside, left string) {
	now := *b
	*b = beside{s.fd, s.inode, s.gen, s.file, left, s.made}
	s.fd, s.inode, s.gen, s.file, s.made = now.fd, now.inode, now.gen, now.file, now.made
	s.store.Store(besideName(s.key, b.inode), b.fd)
	s.store.Store(sharedName(s.key), s.fd)
	s.store.Remove(besideName(s.key, s.inode))
}

// dropBeside closes the sockets that the path does not lead to and no worker has.
func (a *Address) dropBeside(user *linux.User) {
	s, ok := a.kind.(*shared)
	if !ok || len(s.beside) == 0 {
		return
	}
	s.beside = slices.DeleteFunc(s.beside, func(b beside) bool {
		if slices.ContainsFunc(a.leases, func(l *Lease) bool { return l.unix == b.inode }) {
			return false
		}
		s.closeBeside(b, user)
		return true
	})
}

func (s *shared) closeBeside(b beside, user *linux.User) {
	s.store.Remove(besideName(s.key, b.inode))
	unix.Close(b.fd)
	if b.name != "" {
		linux.As(s.user(user), func() error {
			if f, _ := s.fileAt(b.name); f == b.file {
				unix.Unlinkat(s.folder, b.name, 0)
			}
			return nil
		})
	}
}

// RemoveBeside removes a file that was made for a socket that has never listened.
func (t *Table) RemoveBeside(folder int, name string, file FileID) {
	linux.As(t.cfg.User, func() error {
		var st unix.Stat_t
		if unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && (FileID{st.Dev, st.Ino}) == file {
			unix.Unlinkat(folder, name, 0)
		}
		return nil
	})
}

func (s *shared) fileAt(name string) (FileID, error) {
	var st unix.Stat_t
	err := unix.Fstatat(s.folder, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return FileID{st.Dev, st.Ino}, err
}

// closeAll closes what a unix address has besides its socket.
func (s *shared) closeAll(user *linux.User) {
	for _, b := range s.beside {
		s.closeBeside(b, user)
	}
	s.beside = nil
	if s.folder >= 0 {
		s.store.Remove(folderName(s.key))
		unix.Close(s.folder)
		s.folder = -1
	}
}

// pathQuiet waits until no connection can reach a worker by a path that leads to another
// socket, or will.
type pathQuiet struct {
	s     *shared
	inode uint64
	grace time.Duration
	since time.Time // when the path led elsewhere
}

// Look reports whether it is quiet, else the time until the next look.
func (q *pathQuiet) Look(now time.Time) (bool, time.Duration) {
	if q.s.inode == q.inode {
		q.since = time.Time{}
		return true, 0 // one socket for all: only time helps
	}
	if q.since.IsZero() {
		q.since = now
	}
	for _, b := range q.s.beside {
		if b.inode == q.inode && readable(b.fd) {
			return false, pathLook
		}
	}
	if left := q.since.Add(q.grace).Sub(now); left > 0 {
		return false, left
	}
	return true, 0
}

const pathLook = 5 * time.Millisecond

// readable reports whether a connection waits in the queue of a socket.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLIN != 0
}

// BesideState is the state of a socket that the path does not lead to.
type BesideState struct {
	Inode uint64 `json:"inode"`
	Gen   int    `json:"gen"`
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Name  string `json:"name,omitempty"`
	Made  Access `json:"made"`
}

func (s *shared) besideState() (all []BesideState) {
	for _, b := range s.beside {
		all = append(all, BesideState{b.inode, b.gen, b.file.Dev, b.file.Ino, b.name, b.made})
	}
	return all
}

// restoreBeside takes them over. The previous master may have been killed after it had
// exchanged the names, and before it could say so.
func (s *shared) restoreBeside(r *SharedState, fd func(string) int) {
	s.gen, s.made, s.folder = r.Gen, r.Made, -1
	if !r.Folder {
		return
	}
	s.folder = fd(folderName(s.key))
	for _, b := range r.Beside {
		if n := fd(besideName(s.key, b.Inode)); n >= 0 {
			s.beside = append(s.beside, beside{n, b.Inode, b.Gen, FileID{b.Dev, b.Ino}, b.Name, b.Made})
		}
	}
	if s.folder < 0 {
		return
	}
	at, err := s.fileAt(s.place.Name)
	for i := range s.beside {
		if b := &s.beside[i]; err == nil && b.file == at {
			s.swap(b, b.name)
			return
		}
	}
}
