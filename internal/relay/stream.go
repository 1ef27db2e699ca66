package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxHead bounds what is kept of a head. What has no end there is passed on without
	// being understood: programs have limits of their own.
	maxHead = 256 << 10
	pieces  = 32 << 10
)

// stream reads of a connection.
type stream struct {
	c     net.Conn
	buf   []byte       // read, and not passed on yet
	moved atomic.Int64 // bytes read
	ended error        // what reading ended with
}

// fill reads once.
func (s *stream) fill() error {
	if s.ended != nil {
		return s.ended
	}
	if cap(s.buf)-len(s.buf) < pieces/2 {
		s.buf = append(make([]byte, 0, 2*len(s.buf)+pieces), s.buf...)
	}
	n, err := s.c.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	s.moved.Add(int64(n))
	if n > 0 {
		return nil
	}
	s.ended = err
	return err
}

// await waits for bytes, and leaves them where they are.
func (s *stream) await() error {
	if len(s.buf) > 0 {
		return nil
	}
	c, ok := s.c.(syscall.Conn)
	if !ok {
		return s.fill()
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case n == 0:
		return io.EOF
	}
	return nil
}

// head returns the length of the head at the beginning of what comes; 0: it has no end within
// maxHead, or it may not be one.
func (s *stream) head(may func([]byte) bool) (int, error) {
	for scanned := 0; may(s.buf); {
		n, next := headEnd(s.buf, scanned)
		if n > 0 {
			return n, nil
		}
		if scanned = next; len(s.buf) >= maxHead {
			return 0, nil
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// request reads the head of a request.
func (s *stream) request() (*request, error) {
	n, err := s.head(func([]byte) bool { return true })
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return parseRequest(s.buf, false), nil
	}
	return parseRequest(s.buf[:n], true), nil
}

// send passes n bytes of what was read.
func (s *stream) send(to io.Writer, n int) error {
	if n == 0 {
		return nil
	}
	_, err := to.Write(s.buf[:n])
	s.buf = s.buf[:copy(s.buf, s.buf[n:])]
	return err
}

// replace puts other bytes in the place of the first n, and returns how many.
func (s *stream) replace(n int, by []byte) int {
	s.buf = append(by, s.buf[n:]...)
	return len(by)
}

// errEndUnknown: it cannot be told where the message ends, unless the connection does.
var errEndUnknown = errors.New("end of message not known")

// pass writes a message: its head, and the body, whose end f knows. What is there of both is
// one write, as it may have been the sender's. ending is called before the last one: are there
// bytes behind?
func (s *stream) pass(to io.Writer, head int, f *framing, ending func(behind bool)) error {
	for {
		n, end := f.take(s.buf[head:])
		if f.kind == untilEnd {
			return errEndUnknown
		}
		if end {
			ending(len(s.buf) > head+n)
		}
		if err := s.send(to, head+n); err != nil {
			return writeError{err}
		}
		if end {
			return nil
		}
		head = 0
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// passAll writes everything, to the end of the connection.
func (s *stream) passAll(to io.Writer) error {
	for {
		if err := s.send(to, len(s.buf)); err != nil {
			return writeError{err}
		}
		if err := s.fill(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// writeError: it was the other side that did not take it.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// reset has the connection end with a reset, where it has one.
func reset(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// headEnd returns the length of the head that b begins with, empty lines before it
// counted in, or 0 and from where to look on when more is there. A line ends with LF: that
// a CR is missing is seen later.
func headEnd(b []byte, from int) (n, next int) {
	if from == 0 {
		for from < len(b) && (b[from] == '\r' || b[from] == '\n') {
			from++
		}
		if from == len(b) {
			return 0, 0
		}
	}
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, max(from, len(b))
		}
		end := from + i + 1
		switch rest := b[end:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return end + 1, 0
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return end + 2, 0
		case len(rest) == 0 || len(rest) == 1 && rest[0] == '\r':
			return 0, end - 1
		}
		from = end
	}
}
