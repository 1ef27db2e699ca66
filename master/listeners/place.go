package listeners

import (
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// AtPlace returns the address whose file is at a place, or was when it was made; nil: none.
func (t *Table) AtPlace(p Place) *Address {
	return t.where(func(a *Address) bool {
		s, ok := a.kind.(*shared)
		return ok && p != (Place{}) && s.place == p
	})
}

// OfSocket returns the address that has the unix socket with that inode, nil if there is none.
func (t *Table) OfSocket(inode uint64) *Address {
	return t.where(func(a *Address) bool {
		s, ok := a.kind.(*shared)
		return ok && inode != 0 && (s.inode == inode || slices.ContainsFunc(s.beside, func(b beside) bool { return b.inode == inode }))
	})
}

// Places are the places of all unix sockets.
func (t *Table) Places() (all []Place) {
	for _, a := range t.list {
		if s, ok := a.kind.(*shared); ok && s.place != (Place{}) {
			all = append(all, s.place)
		}
	}
	return all
}

// Bound is a unix socket that a worker has bound.
type Bound struct {
	Type   Type
	FD     int // owned by whom it is given
	Gen    int // of the worker
	Place  Place
	File   FileID
	Path   string // for people
	Folder int    // owned likewise; -1: abstract
	Made   Access // how its file was made
}

// AdoptUnix creates an address from a unix socket that a worker has bound, and listens on it:
// nobody is refused in the instant before the worker's own listen(2), which is still to be
// executed. Another socket that was there, and whose file has been removed or replaced, is
// followed by this one; workers keep what they have of it.
func (t *Table) AdoptUnix(b Bound) (*Address, error) {
	if err := unix.Listen(b.FD, -1); err != nil { // which waits for nothing: see unix_listen
		unix.Close(b.FD)
		if b.Folder >= 0 {
			unix.Close(b.Folder)
		}
		return nil, err
	}
	if old := t.AtPlace(b.Place); old != nil {
		t.abandonPlace(old)
	}
	a := t.newAddress(Endpoint{Family: Unix, Type: b.Type, Addr: b.Path})
	t.add(a, t.newShared(shared{key: a.key, fd: b.FD, typ: b.Type, label: b.Path, path: b.Path, file: b.File, place: b.Place, workers: true,
		inode: inodeOf(b.FD), gen: b.Gen, made: b.Made, folder: b.Folder}))
	return a, nil
}

// abandonPlace: the file of an address leads to it no more.
func (t *Table) abandonPlace(a *Address) {
	if s := a.kind.(*shared); a.preopened {
		s.place, s.path = Place{}, ""
		return
	}
	t.close(a)
	t.list = slices.DeleteFunc(t.list, func(o *Address) bool { return o == a })
}

// File is the file of a unix address; the zero one: it has none.
func (a *Address) File() FileID {
	if s, ok := a.kind.(*shared); ok {
		return s.file
	}
	return FileID{}
}

// InPlace reports whether its file is where it was made.
func (a *Address) InPlace() bool {
	s, ok := a.kind.(*shared)
	if !ok || s.file == (FileID{}) {
		return false
	}
	var st unix.Stat_t
	var err error
	if s.folder >= 0 {
		err = unix.Fstatat(s.folder, s.place.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	} else {
		err = unix.Lstat(s.path, &st)
	}
	return err == nil && s.file == FileID{st.Dev, st.Ino}
}

// FD is the one socket of all workers; -1: each has its own. The table owns it.
func (a *Address) FD() int {
	if s, ok := a.kind.(*shared); ok {
		return s.fd
	}
	return -1
}

// Inode is of the one socket of all workers; 0: each has its own.
func (a *Address) Inode() uint64 {
	if s, ok := a.kind.(*shared); ok {
		return s.inode
	}
	return 0
}

// holders is how many leases there are of a unix socket.
func (a *Address) holders(inode uint64) (n int) {
	for _, l := range a.leases {
		if l.unix == inode {
			n++
		}
	}
	return n
}

// Closed reports whether the address was closed.
func (a *Address) Closed() bool { return a.closed }

// Bound reports whether a worker has bound the address itself.
func (a *Address) Bound(id Worker) bool {
	l := a.LeaseOf(id)
	return l != nil && !l.atStart
}

// Place is where the file of a unix address is; zero: it is none, or its folder is not known.
func (a *Address) Place() Place {
	if s, ok := a.kind.(*shared); ok {
		return s.place
	}
	return Place{}
}

// Moved: the file of the address has been renamed, to another folder perhaps, which the table
// owns from then on (-1: it is not known). What is beside it goes along.
func (a *Address) Moved(p Place, path string, folder int) {
	s, ok := a.kind.(*shared)
	if !ok || s.folder < 0 || folder < 0 {
		if folder >= 0 {
			unix.Close(folder)
		}
		folder = -1
	}
	if !ok {
		return
	}
	s.place, s.path, s.label = p, path, path
	a.name, a.endpoint.Addr = path, path
	if folder < 0 {
		return
	}
	linux.As(a.table.cfg.User, func() error {
		for _, b := range s.beside {
			if b.name != "" {
				unix.Renameat(s.folder, b.name, folder, b.name)
			}
		}
		return nil
	})
	unix.Close(s.folder)
	s.folder = folder
	s.store.Store(folderName(s.key), folder)
}

// Unlinked: a worker meant to remove the file, while others may serve there. If it was the
// last one to get a lease, and stays it, the file is removed when the address is closed.
func (a *Address) Unlinked(id Worker) {
	s, ok := a.kind.(*shared)
	if n := len(a.leases); ok && (n > 0 && a.leases[n-1].worker == id || n == 0 && a.last == id) {
		s.unlinked = true
	}
}

// removeLeft removes the file that the last worker meant to remove.
func (a *Address) removeLeft(user *linux.User) {
	if s, ok := a.kind.(*shared); ok && s.workers && s.unlinked && filepath.IsAbs(s.path) {
		linux.As(user, func() error {
			removeSocket(s.path, s.file)
			return nil
		})
	}
}

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
