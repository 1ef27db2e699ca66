package process

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/tail"
)

// pipeSize is asked for, for a pipe that a process writes to, in bytes (pipe(7); the
// most that an unprivileged process gets by default): while nobody reads it, the process
// goes on all the same.
const pipeSize = 1 << 20

// open opens a pipe, of which *read stays ours, and write is the process's.
func (p *Process) open(read **os.File) (write *os.File, err error) {
	if *read, write, err = os.Pipe(); err != nil {
		return nil, err
	}
	if raw, rerr := write.SyscallConn(); rerr == nil {
		raw.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	return write, nil
}

// StopCopying ends the copying of the output of processes: what is left in the pipes is
// somebody else's. It returns when what was read is written, or after timeout, where a
// reader of ours is stuck.
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

// passThrough copies a stream of a process's to out, as it comes, until nobody has
// the other end any more, or a deadline is set and it is empty. It remembers the end
// of it in last, if there is one. A stream without a line's end is flushed.
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
		out.Write(buf[:n]) // a reader of ours that is gone is no reason to stop a program
		if last != nil {
			last.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// readNow reads what is there, past a deadline.
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
