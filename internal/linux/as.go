package linux

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is whose rights to files count: what a process of that user has.
type User struct {
	UID, GID int
	Groups   []int
}

// As runs f with the rights to files of that user alone, in a thread of its own, which ends
// with it; with handoff's own, where it is called, if u is nil. They are the file system's
// ids (setfsuid(2)), not the thread's: whoever has a real or effective id in a process may
// kill it. f must not start goroutines that are to have these rights.
func As(u *User, f func() error) error {
	if u == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() { // ends with f; it never unlocks its thread, so that the runtime ends that
		runtime.LockOSThread()
		done <- as(u, f)
	}()
	return <-done
}

func as(u *User, f func() error) error {
	groups, err := unix.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	defer func() { // the main thread is not ended by the runtime, it waits for ever
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

// Unmapped tells whether a file's user is none of this user namespace: the machine's root,
// perhaps, as whom it cannot be told. It is never one in the first namespace.
func Unmapped(uid int) bool {
	overflow, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if n, nerr := strconv.Atoi(strings.TrimSpace(string(overflow))); err != nil || nerr != nil || n != uid {
		return false
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
}

// FileUser returns whose rights to files a thread has.
func FileUser(tid int) (*User, error) {
	b, err := os.ReadFile(proc(tid) + "/status")
	if err != nil {
		return nil, err
	}
	return parseFileUser(string(b))
}

// parseFileUser reads the lines Uid, Gid (real, effective, saved, of the file system) and
// Groups of /proc/PID/status.
func parseFileUser(text string) (*User, error) {
	u := &User{UID: -1, GID: -1}
	for line := range strings.Lines(text) {
		name, values, _ := strings.Cut(line, ":")
		var ids []int
		if name == "Uid" || name == "Gid" || name == "Groups" {
			for _, word := range strings.Fields(values) {
				n, err := strconv.ParseUint(word, 10, 32)
				if err != nil {
					return nil, unix.EBADMSG
				}
				ids = append(ids, int(n))
			}
		}
		switch {
		case name == "Groups":
			u.Groups = ids
		case name == "Uid" && len(ids) == 4:
			u.UID = ids[3]
		case name == "Gid" && len(ids) == 4:
			u.GID = ids[3]
		}
	}
	if u.UID < 0 || u.GID < 0 {
		return nil, unix.EBADMSG
	}
	return u, nil
}

// Umask is that of a thread.
func Umask(tid int) (int, error) { return field(proc(tid)+"/status", "Umask:", 8) }
