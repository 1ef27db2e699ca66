package process

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/internal/tail"
)

// pipeSize is the requested size of an output pipe, in bytes (pipe(7); the default
// maximum of an unprivileged process): the process can continue for a while if nobody
// reads it.
const pipeSize = 1 << 20

// pipe opens a pipe, of which *read stays ours, and write is the process's. What the
// process has is open for reading, too: so it is never the writer of a pipe that nobody
// reads (EPIPE, SIGPIPE), also where all of handoff has been killed.
func pipe(read **os.File) (write *os.File, err error) {
	if *read, write, err = os.Pipe(); err != nil {
		return nil, err
	}
	raw, err := write.SyscallConn()
	if err != nil {
		return write, nil
	}
	both := -1
	raw.Control(func(fd uintptr) {
		unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize)
		both, err = unix.Open("/proc/self/fd/"+strconv.Itoa(int(fd)), unix.O_RDWR|unix.O_CLOEXEC, 0)
	})
	if err != nil || both < 0 {
		return write, nil
	}
	write.Close()
	return os.NewFile(uintptr(both), "|1"), nil
}

// openStdout opens what a process writes to as its stdout, and returns its end of it.
//
// With a terminal of its own it does what it would do at the user's: it colours what it
// writes, and writes each line at once. But when the user's closes, nothing happens to it.
func (p *Process) openStdout(kind Stdout) (write *os.File, err error) {
	if kind == Terminal {
		read, write, err := linux.OpenPTY()
		if err == nil {
			p.stdout = read
			resize(write)
			return write, nil
		}
	}
	return pipe(&p.stdout)
}

// resize gives a terminal the size of this process's own.
func resize(terminal *os.File) {
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if err == nil {
		unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size)
	}
}

// StopCopying ends the copying of the output of processes, and leaves the rest in the
// pipes. It returns when what was read is written, or after timeout, if a reader of
// handoff's output is stuck.
func StopCopying(timeout time.Duration, all ...*Process) {
	past := time.Unix(1, 0)
	for _, p := range all {
		for _, f := range []*os.File{p.stdout, p.stderr} {
			if f != nil {
				f.SetReadDeadline(past)
			}
		}
	}
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	for _, p := range all {
		select {
		case <-p.copied:
		case <-limit.C:
			return
		}
	}
}

func (p *Process) closeOutput() {
	for _, f := range []*os.File{p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// passThrough copies a stream of a process to out until the other end is closed, or a
// deadline is set and the pipe is empty. It keeps the last output in last, if that is not
// nil. An incomplete line is flushed at the end.
func passThrough(in *os.File, out io.Writer, last *tail.Tail) {
	defer in.Close()
	if f, ok := out.(interface{ Flush() }); ok {
		defer f.Flush()
	}
	buf := make([]byte, 8<<10)
	for {
		n, err := in.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = readNow(in, buf)
		}
		out.Write(buf[:n]) // a closed output of handoff is no reason to stop a program
		if last != nil {
			last.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// readNow reads what is available, past a deadline.
func readNow(in *os.File, buf []byte) (n int, err error) {
	raw, err := in.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf) }); cerr != nil {
		return 0, cerr
	}
	if n <= 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}
