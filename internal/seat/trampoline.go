package seat

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Word is the first argument of a process that is to become a worker.
const Word = "__seat"

// Args returns the arguments for the trampoline: the master's own executable is
// started with them, with its end of the socketpair at descriptor fd.
func Args(fd int, listenFDs int, path string, args []string) []string {
	return append([]string{"handoff", Word, strconv.Itoa(fd), strconv.Itoa(listenFDs), path}, args...)
}

// Trampoline becomes the program. args are what follows Word. It returns only
// with an exit code.
//
// What it sends over the socketpair is four bytes, an errno: 0 with the
// notification descriptor, or why there is none; the program runs then all the
// same, and the master knows.
func Trampoline(args []string) int {
	if len(args) < 4 {
		fmt.Fprintln(os.Stderr, "handoff: "+Word+" is for handoff's own use")
		return 2
	}
	pair, err1 := strconv.Atoi(args[0])
	listenFDs, err2 := strconv.Atoi(args[1])
	if err1 != nil || err2 != nil {
		return 2
	}
	runtime.LockOSThread() // the filter is the thread's; exec makes it the process's
	if pair >= 0 {
		fd, err := install()
		var rights []byte
		var errno unix.Errno
		if err == nil {
			rights = unix.UnixRights(fd)
		} else if e, ok := err.(unix.Errno); ok {
			errno = e
		} else {
			errno = unix.ENOSYS
		}
		word := binary.NativeEndian.AppendUint32(nil, uint32(errno))
		if err := unix.Sendmsg(pair, word, rights, nil, unix.MSG_NOSIGNAL); err != nil {
			return 126 // nobody would answer the calls
		}
		unix.Close(pair)
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	env := os.Environ()
	if listenFDs > 0 {
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	}
	err := syscall.Exec(args[2], args[3:], env)
	fmt.Fprintf(os.Stderr, "handoff: cannot run %s: %v\n", args[2], err)
	if err == syscall.ENOENT {
		return 127
	}
	return 126
}
