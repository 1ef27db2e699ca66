package listeners

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// pathMode is how the file of a unix socket is made.
type pathMode struct {
	mode     fs.FileMode // 0: as the umask has it
	uid, gid int         // -1: as it is
}

// FileID tells a file from another that has its name later. The zero one is none: of an
// abstract socket.
type FileID struct{ Dev, Ino uint64 }

// Place is where the file of a unix socket is: its name, in a folder that is known by its
// inode, whatever path leads there. An abstract name begins with a zero byte, and its folder
// is the network namespace. The zero Place is none.
type Place struct {
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Name string `json:"name"`
}

// placeOf is the place of a path, as handoff itself sees it.
func placeOf(path string) Place {
	var st unix.Stat_t
	if unix.Stat(filepath.Dir(path), &st) != nil {
		return Place{}
	}
	return Place{st.Dev, st.Ino, filepath.Base(path)}
}

// bindUnix listens on a path, which it takes over if nobody answers there: the
// socket of a server that was killed. user is whose rights count; nil: handoff's own.
//
// Whoever can write to the folder may put something else in the place of the file at
// any instant. So it has its mode from bind(2) on (that is the socket's own, less the
// umask), and mode and owner are changed by a descriptor that is known to be a socket of
// handoff's.
func bindUnix(path string, made *pathMode, user *linux.User) (fd int, file FileID, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, file, err
	}
	if path == "" || path[0] == 0 || path[0] == '@' { // abstract: no file
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	} else {
		err = linux.As(user, func() (err error) {
			file, err = bindPath(fd, path, made)
			return err
		})
	}
	if err == nil {
		err = unix.Listen(fd, -1)
	}
	if err != nil {
		unix.Close(fd)
		if file != (FileID{}) {
			removeSocket(path, file)
		}
		return -1, FileID{}, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return fd, file, nil
}

// bindPath binds, and makes the file as it is wanted.
func bindPath(fd int, path string, made *pathMode) (file FileID, err error) {
	if made != nil && made.mode != 0 {
		if err := unix.Fchmod(fd, uint32(made.mode.Perm())); err != nil {
			return file, err
		}
	}
	// The folder stays the same one, whatever its path becomes.
	folder, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return file, err
	}
	defer unix.Close(folder)
	name, sa := filepath.Base(path), &unix.SockaddrUnix{Name: path}
	if err = unix.Bind(fd, sa); err == unix.EADDRINUSE && stale(folder, name, path) {
		unix.Unlinkat(folder, name, 0)
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return file, err
	}
	file, _, err = own(folder, name, made)
	return file, err
}

// own makes the file of a socket that was just bound as it is wanted.
func own(folder int, name string, made *pathMode) (file FileID, access Access, err error) {
	at, err := unix.Openat(folder, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return file, access, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err = unix.Fstat(at, &st); err != nil {
		return file, access, err
	}
	file = FileID{st.Dev, st.Ino}
	if made == nil || made.mode == 0 && made.uid < 0 && made.gid < 0 {
		return file, accessOf(&st), nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != unix.Geteuid() || st.Nlink != 1 {
		return FileID{}, access, fmt.Errorf("somebody has put another file in its place (of user %d): %w", st.Uid, unix.EPERM)
	}
	if made.uid >= 0 || made.gid >= 0 {
		if err := unix.Fchownat(at, "", made.uid, made.gid, unix.AT_EMPTY_PATH); err != nil {
			return file, access, err
		}
	}
	if made.mode != 0 && st.Mode&0o777 != uint32(made.mode.Perm()) { // less the umask until now
		if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(at), made.mode.Perm()); err != nil {
			return file, access, err
		}
	}
	err = unix.Fstat(at, &st)
	return file, accessOf(&st), err
}

// linkSecond gives the file of a socket a second name beside it: by that the drain preload
// knows it as handoff's, and it is put back if somebody removes it all the same. A file
// system without links has none.
func linkSecond(path string) {
	unix.Unlink(secondName(path)) // of one that was killed
	unix.Link(path, secondName(path))
}

func secondName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".handoff")
}

// putBack gives a file its name again that somebody has removed.
func putBack(path string, file FileID) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != unix.ENOENT || unix.Lstat(secondName(path), &st) != nil || file != (FileID{st.Dev, st.Ino}) {
		return
	}
	unix.Link(secondName(path), path)
}

// stale reports whether a path is a socket at which nobody listens.
func stale(folder int, name, path string) bool {
	var st unix.Stat_t
	if unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == unix.ECONNREFUSED
}

// removeSocket removes what was made at a path, unless somebody has put another file, or
// another folder, in its place.
func removeSocket(path string, file FileID) {
	folder, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(folder)
	var st unix.Stat_t
	if name := filepath.Base(path); unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && file == (FileID{st.Dev, st.Ino}) {
		unix.Unlinkat(folder, name, 0)
	}
}
