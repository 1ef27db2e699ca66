package linux

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// User is whose rights to files count: what a process of that user has.
type User struct {
	UID, GID int
	Groups   []int
}

// As runs f in a thread of its own, which ends with it: with a umask and a working
// directory of its own, and, unless u is nil, with the rights to files of that user
// alone. They are the file system's ids (setfsuid(2)), not the thread's: whoever has a
// real or effective id in a process may kill it. f must not start goroutines that are to
// have these rights.
func As(u *User, f func() error) error {
	done := make(chan error, 1)
	go func() { // ends with f; it never unlocks its thread, so that the runtime ends that
		runtime.LockOSThread()
		done <- as(u, f)
	}()
	return <-done
}

func as(u *User, f func() error) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	defer unix.Umask(umask) // the runtime does not end the main thread
	if u == nil {
		return f()
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	defer func() {
		unix.SetfsuidRetUid(os.Geteuid())
		unix.SetfsgidRetGid(os.Getegid())
		setgroups(groups)
		if dumpable == 1 { // a change of these ids clears it, for the whole process
			unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		}
	}()
	if err := setgroups(u.Groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	unix.SetfsgidRetGid(u.GID)
	unix.SetfsuidRetUid(u.UID)
	// They tell of no error but by what is so afterwards: -1 changes nothing.
	gid, _ := unix.SetfsgidRetGid(-1)
	uid, _ := unix.SetfsuidRetUid(-1)
	if gid != u.GID || uid != u.UID {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return f()
}
