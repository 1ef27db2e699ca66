package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenOutput opens a file for writing, in a folder that may belong to another user. It does
// not block: a pipe without a reader is an error.
//
// For root, who can write everywhere, the path must not lead elsewhere: only root's own
// links are followed, and outside of root's folders a file with several hard links, or
// anything but a regular file, is refused. The kernel limits other users to what they may
// write; in a folder that everybody can write to, like /tmp, links and pipes of another user
// are refused (as fs.protected_symlinks does, where it is on).
func OpenOutput(path string, flags int, perm fs.FileMode) (*os.File, error) {
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := openOutput(path, flags, uint32(perm.Perm()))
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openOutput(path string, flags int, perm uint32) (int, error) {
	euid := os.Geteuid()
	follow := rootsOwn
	if euid != 0 {
		if of, ok := strings.CutPrefix(filepath.Clean(path), "/dev/"); ok && !strings.HasPrefix(of, "shm/") || strings.HasPrefix(path, "/proc/") {
			return unix.Open(path, flags, perm) // /dev/stdout is what is open, wherever its path would lead
		}
		follow = notPlanted(euid)
	}
	folder, name, err := walk(path, follow)
	if err != nil {
		return -1, err
	}
	defer unix.Close(folder)
	fd, err := unix.Openat(folder, name, flags|unix.O_NOFOLLOW, perm)
	if err == unix.ELOOP { // walk has left it: /proc/self/fd/1, which is no path
		return unix.Openat(folder, name, flags, perm)
	}
	if err != nil {
		return -1, err
	}
	var st, dir unix.Stat_t
	if err = errors.Join(unix.Fstat(fd, &st), unix.Fstat(folder, &dir)); err == nil && euid != 0 {
		if !notPlanted(euid)(&st, &dir) {
			err = fmt.Errorf("it belongs to user %d, in a directory that anyone can write to", st.Uid)
		}
	} else if err == nil && !ownFolder(&dir) {
		switch regular := st.Mode&unix.S_IFMT == unix.S_IFREG; {
		case !regular:
			err = errors.New("not a file, in a directory that another user can write to")
		case st.Nlink != 1:
			err = errors.New("it has another hard link, and another user can write to its folder")
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ForeignLink is a link of a user on the way to a file, which root does not follow.
type ForeignLink struct {
	Name string
	UID  int
}

func (l *ForeignLink) Error() string {
	why := "which root does not follow"
	if os.Geteuid() != 0 {
		why = "in a directory that anyone can write to"
	}
	return fmt.Sprintf("%s is a link of user %d, %s: give the path that it leads to", l.Name, l.UID, why)
}

// OpenOwnInput is [OpenInput] that, for root, follows only root's own links: otherwise
// everybody who can write to the folder could have any file read. Another link is a
// [ForeignLink].
func OpenOwnInput(path string) (*os.File, error) {
	if os.Geteuid() != 0 {
		return OpenInput(path)
	}
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	folder, name, err := walk(path, rootsOwn)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(folder)
	fd, err := unix.Openat(folder, name, flags|unix.O_NOFOLLOW, 0)
	if err == unix.ELOOP { // see openOutput
		fd, err = unix.Openat(folder, name, flags, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return input(os.NewFile(uintptr(fd), path), path)
}

// ownFolder reports whether only root can change the contents of a folder.
func ownFolder(st *unix.Stat_t) bool {
	return st.Uid == 0 && st.Mode&0o002 == 0 && (st.Mode&0o020 == 0 || st.Gid == 0)
}

// MakeFolders creates a folder and its missing parents; links are treated as in
// [OpenOutput].
func MakeFolders(path string, perm fs.FileMode) error {
	if os.Geteuid() != 0 {
		return os.MkdirAll(path, perm)
	}
	parent := ""
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if parent += part + "/"; part == "" || part == "." || part == ".." {
			continue
		}
		at := strings.TrimSuffix(parent, "/")
		if filepath.IsAbs(path) {
			at = "/" + at
		}
		folder, name, err := walk(at, rootsOwn)
		if err == nil {
			err = unix.Mkdirat(folder, name, uint32(perm.Perm()))
			unix.Close(folder)
		}
		if err != nil && err != unix.EEXIST {
			return &fs.PathError{Op: "mkdir", Path: at, Err: err}
		}
	}
	return nil
}

// RemoveFile removes a file by its name, if that still names the same file.
func RemoveFile(path string, f *os.File) error {
	folder, name, err := walk(path, anyOnes)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	var is, was unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &was), unix.Fstatat(folder, name, &is, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	if is.Dev != was.Dev || is.Ino != was.Ino {
		return fmt.Errorf("%s is another file now", path)
	}
	if is.Mode&unix.S_IFMT != unix.S_IFREG { // /dev/null
		return fmt.Errorf("%s is not a regular file", path)
	}
	return unix.Unlinkat(folder, name, 0)
}

// maxLinks limits the links in a path, as the kernel does.
const maxLinks = 40

// follower tells whether a link, or what is in the place of a file, counts, by its state and
// that of its folder.
type follower func(link, folder *unix.Stat_t) bool

func anyOnes(_, _ *unix.Stat_t) bool { return true }

// rootsOwn is root's: by another user's link that one would say which file it is.
func rootsOwn(link, _ *unix.Stat_t) bool { return link.Uid == 0 || Unmapped(int(link.Uid)) }

// notPlanted is any other user's: in a folder that is everybody's, only what is root's, the
// own or the folder's owner's.
func notPlanted(euid int) follower {
	return func(link, folder *unix.Stat_t) bool {
		return folder.Mode&0o002 == 0 || int(link.Uid) == euid || link.Uid == folder.Uid || rootsOwn(link, folder)
	}
}

// walk opens the folder that a path leads to, which the caller closes, and returns the last
// name, which is no link, unless it is one of /proc.
func walk(path string, follow follower) (folder int, name string, err error) {
	start, parts := ".", strings.Split(path, "/")
	if filepath.IsAbs(path) {
		start = "/"
	}
	folder, err = openFolder(unix.AT_FDCWD, start)
	for links := 0; err == nil; {
		for len(parts) > 1 && (parts[0] == "" || parts[0] == ".") {
			parts = parts[1:]
		}
		if len(parts) == 0 || len(parts) == 1 && (parts[0] == "" || parts[0] == "." || parts[0] == "..") {
			err = unix.EISDIR
			break
		}
		target, lerr := linkIn(folder, parts[0], follow)
		switch {
		case lerr != nil:
			err = lerr
		case target != "":
			if links++; links > maxLinks {
				err = unix.ELOOP
			}
			parts = append(strings.Split(target, "/"), parts[1:]...)
			if filepath.IsAbs(target) {
				folder, err = step(folder, "/", err)
			}
		case len(parts) == 1:
			return folder, parts[0], nil
		default:
			folder, err = step(folder, parts[0], err)
			parts = parts[1:]
		}
	}
	if folder >= 0 {
		unix.Close(folder)
	}
	return -1, "", err
}

// step goes from a folder, which it closes, to another.
func step(from int, to string, before error) (int, error) {
	if before != nil {
		return from, before
	}
	fd, err := openFolder(from, to)
	unix.Close(from)
	return fd, err
}

func openFolder(at int, name string) (int, error) {
	return unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// linkIn reads a link in a folder; "": it is none, or nothing is there, or it is one of
// /proc that stands for an open file.
func linkIn(folder int, name string, follow follower) (target string, err error) {
	fd, err := unix.Openat(folder, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	var dir unix.Stat_t
	if err := unix.Fstat(folder, &dir); err != nil {
		return "", err
	}
	if !follow(&st, &dir) {
		return "", &ForeignLink{name, int(st.Uid)}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	var fsys unix.Statfs_t
	if target = string(buf[:n]); unix.Fstatfs(fd, &fsys) == nil && fsys.Type == unix.PROC_SUPER_MAGIC && strings.Contains(target, ":[") {
		return "", nil
	}
	return target, nil
}
