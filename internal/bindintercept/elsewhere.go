package bindintercept

import (
	"errors"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Access is who may connect to a socket: the mode and the owner of its file.
type Access struct {
	Mode     int
	UID, GID int
}

// made is how the kernel makes the file of a socket that is bound in a folder.
func (c *Call) made(socket, folder int) (a Access) {
	var own, in unix.Stat_t
	user, uerr := linux.FileUser(c.PID)
	umask, err := linux.Umask(c.PID)
	if errors.Join(uerr, err, unix.Fstat(socket, &own), unix.Fstat(folder, &in)) != nil {
		return a
	}
	a = Access{int(own.Mode&0o777) &^ umask, user.UID, user.GID}
	if in.Mode&unix.S_ISGID != 0 {
		a.GID = int(in.Gid)
	}
	return a
}

// Beside is a file that was made for a program's socket, where another one has the name.
type Beside struct {
	File File
	Made Access
	Err  error
}

// BindBeside binds the program's socket to the path that it asks for, as far as it can see,
// to a file that has another name in the same folder: name. Its rights and its umask are those
// of the thread that called. then is called in a goroutine: it may take as long as the file
// system likes. The call still waits for its answer.
func (c *Call) BindBeside(name string, then func(Beside)) {
	go func() {
		var b Beside
		b.File, b.Made, b.Err = c.place(func(folder int) error { return c.bindAs(folder, name) }, name)
		then(b)
	}()
}

// MoveBeside renames the file of a rename's source to a name beside its target.
func (c *Call) MoveBeside(name string, then func(Beside)) {
	go func() {
		var b Beside
		b.File, b.Made, b.Err = c.place(func(folder int) error {
			return c.as(func() error { return unix.Renameat(c.folders[0], c.Spot.Name, folder, name) })
		}, name)
		then(b)
	}()
}

// place has a file made in the folder of the path, and returns what it is.
func (c *Call) place(do func(folder int) error, name string) (f File, a Access, err error) {
	if len(c.folders) == 0 {
		return f, a, unix.EOPNOTSUPP // an abstract name
	}
	folder := c.folders[len(c.folders)-1]
	if linux.Slow(folder) { // the loop changes names there
		err = unix.EOPNOTSUPP
	} else {
		err = do(folder)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	return File{st.Dev, st.Ino}, Access{int(st.Mode & 0o7777), int(st.Uid), int(st.Gid)}, err
}

// as runs f with the rights to files of the thread that called.
func (c *Call) as(f func() error) error {
	user, err := c.user()
	if err != nil {
		return err
	}
	return linux.As(user, f)
}

// user is whose rights to files the thread that called has; nil: those of this process.
func (c *Call) user() (*linux.User, error) {
	user, err := linux.FileUser(c.PID)
	if err == nil && user.UID == unix.Geteuid() {
		user = nil
	}
	return user, err
}

// bindAs binds the program's socket to the text that the program has given, as far as it can
// see, with its file under another name in the folder of the path.
func (c *Call) bindAs(folder int, name string) error {
	umask, err := linux.Umask(c.PID)
	if err != nil {
		return err
	}
	socket, err := c.process.Getfd(c.FD)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	user, err := c.user()
	if err != nil {
		return err
	}
	return linux.BindElsewhere(user, socket, folder, name, c.text, umask)
}

// Folder returns a duplicate of the folder of the call's last path, which the caller closes;
// -1: it has none.
func (c *Call) Folder() int {
	if len(c.folders) == 0 {
		return -1
	}
	fd, err := unix.FcntlInt(uintptr(c.folders[len(c.folders)-1]), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return fd
}
