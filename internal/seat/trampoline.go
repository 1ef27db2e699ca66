package seat

import (
	"encoding/binary"
	"encoding/json"
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
// started with them, with its end of the socketpair at descriptor fd (-1: it has
// none, and no filter), after listenFDs sockets from 3 on.
func Args(fd, listenFDs int, c Conditions, path string, args []string) []string {
	return append([]string{"handoff", Word, strconv.Itoa(fd), strconv.Itoa(listenFDs), c.text(), path}, args...)
}

// Trampoline becomes the program. args are what follows Word. It returns only
// with an exit code.
//
// What it sends over the socketpair is four bytes, an errno: 0 with the
// notification descriptor, or why there is none; the program runs then all the
// same, and the master knows.
func Trampoline(args []string) int {
	if len(args) < 5 {
		fmt.Fprintln(os.Stderr, "handoff: "+Word+" is for handoff's own use")
		return 2
	}
	pair, err1 := strconv.Atoi(args[0])
	listenFDs, err2 := strconv.Atoi(args[1])
	var conditions Conditions
	if err1 != nil || err2 != nil || args[2] != "" && json.Unmarshal([]byte(args[2]), &conditions) != nil {
		return 2
	}
	path, args := args[3], args[4:]
	runtime.LockOSThread() // the filter is the thread's, so are nice and affinity; exec makes them the process's
	if err := conditions.before(); err != nil {
		return cannot(path, err)
	}
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
	if err := conditions.drop(); err != nil {
		return cannot(path, err)
	}
	env := os.Environ()
	if listenFDs > 0 {
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	}
	err := syscall.Exec(path, args, env)
	cannot(path, err)
	if err == syscall.ENOENT {
		return 127
	}
	return 126
}

// cannot says why the program does not run, and returns the exit code for it, as
// shells have it.
func cannot(path string, err error) int {
	fmt.Fprintf(os.Stderr, "handoff: cannot run %s: %v\n", path, err)
	return 126
}
