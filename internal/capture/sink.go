package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Loss is output that could not be written: the disk is full, the terminal has closed, a
// reader is gone.
type Loss struct {
	To    string // the path of a file; Stdout, Stderr
	Err   error  // why; nil: it is written again
	Lines int    // lost since the last time that this was said
}

// lossEvery is the shortest time between two reports of lost lines, and the time without a
// loss after which the problem counts as over.
const lossEvery = time.Second

// maxWhole is the largest write(2) that the kernel does not interleave with those of other
// writers to the same pipe (PIPE_BUF, pipe(7)).
const maxWhole = 4096

// sink is where output ends: one for each file, stdout and stderr.
type sink struct {
	to   string
	lost func(Loss) bool

	mu     sync.Mutex // held while something is written
	file   io.Writer  // nil: opened by the next write, at the path that to is
	broken bool       // the last line was written in part
	// The current problem.
	err    error // why lines are lost; nil: none are
	failed time.Time
	lines  int // lost, and not said yet
	said   time.Time
	later  bool // a timer will say what was not
}

// write writes whole lines, and what is longer than one, in pieces.
func (s *sink) write(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		n := len(p)
		if n > maxWhole {
			if n = bytes.LastIndexByte(p[:maxWhole], '\n') + 1; n == 0 {
				n = maxWhole
			}
		}
		s.piece(p[:n], time.Now())
		p = p[n:]
	}
}

// piece writes one piece. Every piece is tried, since nothing reports when there is room
// again.
func (s *sink) piece(p []byte, now time.Time) {
	err := s.opened()
	if err == nil && s.broken {
		_, err = s.all([]byte("\n"))
		s.broken = err != nil
	}
	if err == nil {
		var n int
		if n, err = s.all(p); err != nil {
			s.broken = n > 0 && p[n-1] != '\n'
			p = p[n:]
		}
	}
	s.account(err, max(1, bytes.Count(p, []byte("\n"))), now)
}

// account counts what an error has lost, and reports it: at once, then every lossEvery, and
// when nothing was lost for that long. (A full disk now and then has room for a short line.)
func (s *sink) account(err error, lines int, now time.Time) {
	switch {
	case err != nil:
		s.lines, s.err, s.failed = s.lines+lines, err, now
		if now.Sub(s.said) >= lossEvery {
			s.say(err, now)
		}
		s.sayLater()
	case s.err != nil && now.Sub(s.failed) >= lossEvery:
		if s.say(nil, now) {
			s.err = nil
		}
	}
}

// sayLater reports later what was not reported at once: the next line may be far away.
func (s *sink) sayLater() {
	if s.lines == 0 || s.later {
		return
	}
	s.later = true
	time.AfterFunc(lossEvery, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.later = false; s.lines > 0 {
			s.say(s.err, time.Now())
			s.sayLater()
		}
	})
}

// say reports what was lost since the last report; if that cannot be written now, the next
// line reports it.
func (s *sink) say(err error, now time.Time) (heard bool) {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = errno
	}
	if heard = s.lost(Loss{s.to, err, s.lines}); heard {
		s.lines, s.said = 0, now
	}
	return heard
}

// all writes everything, also to what another process has made non-blocking.
func (s *sink) all(p []byte) (n int, err error) {
	for n < len(p) {
		wrote, err := s.file.Write(p[n:])
		n += max(wrote, 0)
		f, ok := s.file.(*os.File)
		if !errors.Is(err, unix.EAGAIN) || !ok {
			if err != nil {
				return n, err
			}
			continue
		}
		raw, rerr := f.SyscallConn()
		if rerr != nil {
			return n, rerr
		}
		raw.Control(func(fd uintptr) { unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1) })
	}
	return n, nil
}

// open opens the file of a path.
func (s *sink) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened()
}

func (s *sink) opened() error {
	if s.file != nil {
		return nil
	}
	f, err := linux.OpenOutput(s.to, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o640) // a link there may be a worker's
	if err != nil {
		return fmt.Errorf("cannot write the workers' output: %w", err)
	}
	s.file = f
	return nil
}

// close has the next write open it again.
func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.file.(*os.File); ok {
		f.Close()
	}
	s.file, s.broken = nil, false
}
