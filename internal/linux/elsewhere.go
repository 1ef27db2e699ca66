package linux

import (
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const folderFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// BindElsewhere binds a unix socket in a folder of its own, to the text that it is to have as
// its address, with the rights to files of a user (nil: handoff's own) and that umask, and gives
// the file a name in a folder. The kernel resolves a text from the root or the working
// directory: for a moment a thread of handoff's has another.
func BindElsewhere(u *User, socket, folder int, name, text string, umask int) error {
	done := make(chan error, 1)
	go func() { // ends with its thread, which nobody else gets: it is not unlocked
		runtime.LockOSThread()
		done <- As(u, func() error { return inOwnRoot(func() error { return bindUnder(socket, folder, name, text, umask) }) })
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
	root, err := unix.Open("/", folderFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	dir, err := unix.Open(".", folderFlags, 0)
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
	i := strings.LastIndexByte(text, '/')
	way, base := text[:i+1], text[i+1:]
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
	return unix.Openat(in, name, folderFlags|unix.O_NOFOLLOW, 0)
}

// Slow reports whether the file system of a folder is one whose answers may take long.
func Slow(folder int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(folder, &st) != nil {
		return true
	}
	const p9, ceph = 0x01021997, 0x00c36400
	switch int64(st.Type) {
	case unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, p9, ceph:
		return true
	}
	return false
}
