package listeners

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A path that handoff was told to open has a socket for each generation, too, steered by the
// name (beside.go): of one socket for all, the old generation accepts until it is told to go,
// and programs lose what they have accepted and not read then. One that a service manager has
// passed is its own, and stays one for all, as does an abstract name.

// take gives a worker a lease of the socket that its generation has.
func (p *preopened) take(id Worker, slot, gen int) (*Lease, error) {
	s, ok := p.address.kind.(*shared)
	if !ok || s.folder < 0 {
		return p.address.Take(id, slot)
	}
	inode, _ := p.address.SocketFor(gen)
	if inode == 0 {
		if err := p.address.openBeside(gen, &pathMode{p.Mode, p.UID, p.GID}); err != nil {
			inode = s.inode // as one for all
		} else {
			inode, _ = p.address.SocketFor(gen)
		}
	}
	return p.address.TakeSocket(id, slot, inode)
}

// openFolder has the table know the folder of a path, so that files can be made beside it.
func (s *shared) openFolder() {
	s.folder = -1
	if s.path == "" {
		return
	}
	folder, err := unix.Open(filepath.Dir(s.path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	s.folder = folder
	var at unix.Stat_t
	if unix.Fstatat(folder, s.place.Name, &at, unix.AT_SYMLINK_NOFOLLOW) != nil || (FileID{at.Dev, at.Ino}) != s.file || linux.Slow(folder) {
		unix.Close(folder)
		s.folder = -1
		return
	}
	s.made = accessOf(&at)
}

func accessOf(st *unix.Stat_t) Access {
	return Access{int(st.Mode & 0o7777), int(st.Uid), int(st.Gid)}
}

// openBeside makes the socket of a new generation, with its file beside the path.
func (a *Address) openBeside(gen int, made *pathMode) error {
	s := a.kind.(*shared)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	name := BesideName(s.place.Name, inodeOf(fd))
	umask, err := linux.Umask(unix.Getpid())
	if made.mode != 0 {
		umask = 0
		err = unix.Fchmod(fd, uint32(made.mode.Perm()))
	}
	if err == nil {
		err = linux.BindElsewhere(nil, fd, s.folder, name, s.path, umask)
	}
	var file FileID
	var access Access
	if err == nil {
		file, access, err = own(s.folder, name, made)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return a.AddBeside(fd, gen, name, file, access)
}
