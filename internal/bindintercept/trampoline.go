package bindintercept

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Word is the first argument of a process that executes a worker.
const Word = "__worker"

// Args returns the arguments for the trampoline: the master's own executable is
// started with them, with its end of the socketpair at descriptor fd (-1: it has
// none, and no filter), after listenFDs sockets from 3 on.
func Args(fd, listenFDs int, c Conditions, path string, args []string) []string {
	return append(append(Prefix(fd, listenFDs, c), path), args...)
}

// Prefix is Args without the program.
func Prefix(fd, listenFDs int, c Conditions) []string {
	return []string{"handoff", Word, strconv.Itoa(fd), strconv.Itoa(listenFDs), c.text()}
}

// Trampoline executes the program. args are the arguments after Word. It returns only on
// error, with an exit code.
//
// What it sends over the socketpair is four bytes, an errno: 0 with the
// notification descriptor, or why there is none; the program runs then all the
// same, and the master knows. [ReadFilter] is the other end.
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
	runtime.LockOSThread() // filter, nice and affinity belong to the thread; exec makes them the process's
	if err := conditions.before(); err != nil {
		return cannotRun(path, err)
	}
	if pair >= 0 {
		if err := sendFilter(pair); err != nil {
			return 126 // the calls would not be answered
		}
	}
	if err := conditions.drop(); err != nil {
		return cannotRun(path, err)
	}
	env := os.Environ()
	if listenFDs > 0 {
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	}
	err := syscall.Exec(path, args, env)
	cannotRun(path, err)
	if err == syscall.ENOENT {
		return 127
	}
	return 126
}

// sendFilter installs the filter and sends its notification descriptor, or why
// there is none, over the socketpair, which it closes.
func sendFilter(pair int) error {
	fd, err := install()
	var rights []byte
	var errno unix.Errno
	switch {
	case err == nil:
		defer unix.Close(fd)
		rights = unix.UnixRights(fd)
	case !errors.As(err, &errno):
		errno = unix.ENOSYS
	}
	defer unix.Close(pair)
	return unix.Sendmsg(pair, binary.NativeEndian.AppendUint32(nil, uint32(errno)), rights, nil, unix.MSG_NOSIGNAL)
}

// cannotRun prints why the program does not run, and returns the exit code that shells
// use for it.
func cannotRun(path string, err error) int {
	fmt.Fprintf(os.Stderr, "handoff: cannot run %s: %v\n", path, err)
	return 126
}

// ReadFilter reads what a trampoline sends: the notification descriptor, which is
// the caller's to close, or why the kernel refuses a filter, with fd -1. err means
// that the trampoline has ended without a word.
func ReadFilter(pair *cmsg.Conn) (fd int, refused unix.Errno, err error) {
	word := make([]byte, 4)
	n, fds, err := pair.Read(word)
	fd = -1
	for i, got := range fds {
		if i == 0 && err == nil && n == len(word) {
			fd = got
		} else {
			unix.Close(got)
		}
	}
	if err != nil {
		return -1, 0, err
	}
	if n < len(word) {
		return -1, 0, io.ErrUnexpectedEOF
	}
	refused = unix.Errno(binary.NativeEndian.Uint32(word))
	if fd < 0 && refused == 0 {
		refused = unix.EBADF // lost in transfer: this process has no descriptors left
	}
	return fd, refused, nil
}

// Try runs a program behind the filter, and returns why the kernel refuses that.
// exe is a handoff.
func Try(exe string) error {
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		theirs.Close()
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(exe, Args(3, 0, Conditions{}, "/bin/true", []string{"true"}), &os.ProcAttr{Files: []*os.File{null, null, null, theirs}})
	theirs.Close()
	if err != nil {
		return err
	}
	defer func() {
		p.Kill()
		p.Wait()
	}()
	ours.SetReadDeadline(time.Now().Add(tryTimeout))
	fd, refused, err := ReadFilter(ours)
	if fd >= 0 {
		unix.Close(fd)
	}
	if err == nil && refused != 0 {
		return refused
	}
	return err
}

const tryTimeout = 10 * time.Second
