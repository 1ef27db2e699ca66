package bindintercept

import (
	"errors"
	"runtime"
	"slices"
	"strings"

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
	if err = ordinary(folder); err == nil {
		err = do(folder)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	return File{st.Dev, st.Ino}, Access{int(st.Mode & 0o7777), int(st.Uid), int(st.Gid)}, err
}

// ordinary refuses file systems whose answers may take long: the loop changes names there.
func ordinary(folder int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(folder, &st); err != nil {
		return err
	}
	const p9, ceph = 0x01021997, 0x00c36400
	if slices.Contains([]int64{unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, p9, ceph}, int64(st.Type)) {
		return unix.EOPNOTSUPP
	}
	return nil
}

// as runs f with the rights to files of the thread that called.
func (c *Call) as(f func() error) error {
	user, err := linux.FileUser(c.PID)
	if err != nil {
		return err
	}
	if user.UID == unix.Geteuid() {
		user = nil
	}
	return linux.As(user, f)
}

// bindAs binds the program's socket in a folder of its own, to the text that the program has
// given, and gives the file its name in the folder of the path. The kernel resolves a text
// from the root or the working directory: for a moment a thread of handoff's has another.
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
	done := make(chan error, 1)
	go func() { // ends with its thread, which nobody else gets: it is not unlocked
		runtime.LockOSThread()
		done <- c.as(func() error { return inOwnRoot(func() error { return bindUnder(socket, folder, name, c.text, umask) }) })
	}()
	return <-done
}

// inOwnRoot runs f in a thread whose root, working directory and umask are its own. linux.As
// may have started another one for it.
func inOwnRoot(f func() error) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	root, err := unix.Open("/", openFolderFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	dir, err := unix.Open(".", openFolderFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	umask := unix.Umask(0)
	err = f()
	// The main thread is not ended by the runtime.
	unix.Umask(umask)
	if rerr := unix.Fchdir(root); rerr == nil {
		unix.Chroot(".")
	}
	unix.Fchdir(dir)
	return err
}

// bindUnder makes the folders that the text names below one that is removed again.
func bindUnder(socket, folder int, name, text string, umask int) error {
	way, base := splitPath(text)
	below := name + ".d"
	at, err := makeFolder(folder, below)
	if err != nil {
		return err
	}
	own := at
	defer unix.Close(own)
	defer unix.Unlinkat(folder, below, unix.AT_REMOVEDIR)
	for step := range strings.SplitSeq(way, "/") {
		if step == "" || step == "." {
			continue
		}
		if step == ".." {
			return unix.EOPNOTSUPP
		}
		in := at
		if at, err = makeFolder(in, step); err != nil {
			return err
		}
		defer unix.Close(at)
		defer unix.Unlinkat(in, step, unix.AT_REMOVEDIR)
	}
	if err := unix.Fchdir(own); err != nil {
		return err
	}
	if text[0] == '/' {
		if err := unix.Chroot("."); err != nil {
			return err // EPERM without CAP_SYS_CHROOT
		}
	}
	unix.Umask(umask)
	if err := unix.Bind(socket, &unix.SockaddrUnix{Name: text}); err != nil {
		return err
	}
	unix.Umask(0)
	if err := unix.Renameat(at, base, folder, name); err != nil {
		unix.Unlinkat(at, base, 0)
		return err
	}
	return nil
}

func makeFolder(in int, name string) (int, error) {
	if err := unix.Mkdirat(in, name, 0o700); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return unix.Openat(in, name, openFolderFlags|unix.O_NOFOLLOW, 0)
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
