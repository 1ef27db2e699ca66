package master

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/tail"
)

// outputPipe is the size that is asked for, for a pipe that a worker writes to, in
// bytes (pipe(7); the most that an unprivileged process gets by default): between
// two masters nobody reads it, and the worker goes on all the same.
const outputPipe = 1 << 20

// openOutput returns a pipe for what a worker writes. The caller closes both ends.
func openOutput() (read, write *os.File, err error) {
	if read, write, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if raw, rerr := write.SyscallConn(); rerr == nil {
		raw.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, outputPipe) })
	}
	return read, write, nil
}

// copyOutput passes on what a worker writes until nobody has the other ends any
// more, or hush is called; it closes the read ends. The end of stderr is remembered.
func (m *Master) copyOutput(w *worker, done chan<- struct{}) {
	defer close(done)
	var out io.Writer = os.Stdout
	errs := m.cfg.Stderr
	if m.cfg.Output != nil {
		out, errs = m.cfg.Output(w.slot, w.pid, int(w.gen))
	}
	copied := make(chan struct{})
	go func() { // ends with the pipe
		defer close(copied)
		if w.stdout != nil {
			passThrough(w.stdout, out, nil)
		}
	}()
	passThrough(w.stderr, errs, w.last)
	<-copied
}

// hush ends the copying of all output: what is left in the pipes is the next
// master's. It returns when what was read is written.
func (m *Master) hush() {
	for _, w := range m.workers {
		w.stderr.SetReadDeadline(time.Unix(1, 0))
		if w.stdout != nil {
			w.stdout.SetReadDeadline(time.Unix(1, 0))
		}
	}
	patience := time.NewTimer(hushMost)
	defer patience.Stop()
	for _, w := range m.workers {
		select {
		case <-w.copied:
		case <-patience.C: // a reader of ours that is stuck
			return
		}
	}
}

// hushMost is how long a reader of handoff's own output may hold up an upgrade.
const hushMost = 200 * time.Millisecond

// passThrough copies a stream of a worker's to out, as it comes, until nobody has
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
		out.Write(buf[:n]) // a reader of ours that is gone is no reason to stop a worker
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
