// Package cmsg passes descriptors from process to process over unix sockets, with
// the bytes beside them and the sender's credentials (SCM_RIGHTS and SCM_CREDENTIALS
// of unix(7)). It knows no protocol, and imports the standard library and x/sys
// alone.
package cmsg

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Named is a descriptor with its name.
type Named struct {
	Name string // "" if it has none
	FD   int
}

// maxRights is how many descriptors one message may carry (SCM_MAX_FD).
const maxRights = 253

// Conn is one end of a unix socket, a stream or datagrams, over which descriptors
// can be passed. One goroutine may receive while others send: what a sender writes to
// a stream in several goes may have another's in between.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	oob  []byte // the receiver's
}

// Pair returns two connected ends of a stream: ours, and an inheritable file for a
// child, which the caller closes once the child has it.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot create a socketpair: %w", err)
	}
	// Only our end is made non-blocking: O_NONBLOCK is on the description,
	// and the child decides for its own.
	c, err := Open(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("cannot create a socketpair: %w", err)
	}
	return c, os.NewFile(uintptr(fds[1]), "channel"), nil
}

// Open makes a Conn of a descriptor, which it takes over, also where it returns an
// error.
func Open(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "channel")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Conn{file: file, raw: raw, oob: make([]byte, unix.CmsgSpace(4*maxRights)+unix.CmsgSpace(unix.SizeofUcred))}, nil
}

// Dial connects to a socket for datagrams: a path, or an abstract name that begins
// with @. Each Write is one of them.
func Dial(name string) (*Conn, error) {
	fd, err := datagram()
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return Open(fd)
}

// Listen opens a socket for datagrams at a path, to which only this user may send, or at
// an abstract name that begins with @. Each comes with its sender's credentials, which the kernel vouches for.
func Listen(name string) (*Conn, error) {
	fd, err := datagram()
	if err != nil {
		return nil, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err == nil {
		unix.Fchmod(fd, 0o600) // of the file that bind makes
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return Open(fd)
}

func datagram() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// Close ends a Receive or Write under way, which then returns os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// Message is one received message.
type Message struct {
	N         int         // bytes; 0 from a stream is its end
	FDs       []int       // the caller's to close, close-on-exec
	Sender    *unix.Ucred // nil if not requested
	Truncated bool        // the datagram was longer, or had more descriptors
}

// Receive receives once. The error is os.ErrDeadlineExceeded after a deadline,
// os.ErrClosed after Close.
func (c *Conn) Receive(p []byte) (m Message, err error) {
	rerr := c.raw.Read(func(fd uintptr) bool {
		m, err = receive(int(fd), p, c.oob)
		return err != unix.EAGAIN
	})
	if rerr != nil {
		return Message{}, waited(rerr)
	}
	return m, err
}

// waited converts the error of a wait in Go's poller, which has a type of its own for a
// closed file.
func waited(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

// ReceiveNow is Receive without blocking: if nothing is there, the error is EAGAIN.
func (c *Conn) ReceiveNow(p []byte) (m Message, err error) {
	if cerr := c.raw.Control(func(fd uintptr) { m, err = receive(int(fd), p, c.oob) }); cerr != nil {
		return Message{}, os.ErrClosed
	}
	return m, err
}

func receive(fd int, p, oob []byte) (Message, error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Message{}, err
		}
		m := Message{N: n, Truncated: flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0}
		m.FDs, m.Sender = unpack(oob[:oobn])
		return m, nil
	}
}

// Read is Receive from a stream: n is 0 at its end, with no error.
func (c *Conn) Read(p []byte) (n int, fds []int, err error) {
	m, err := c.Receive(p)
	return m.N, m.FDs, err
}

// unpack reads descriptors and credentials from control messages; others are ignored.
func unpack(oob []byte) (fds []int, sender *unix.Ucred) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, nil
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch n := len(m.Data); { // x/sys does not check it
		case m.Header.Type == unix.SCM_RIGHTS && n > 0 && n%4 == 0:
			if got, err := unix.ParseUnixRights(m); err == nil {
				fds = append(fds, got...)
			}
		case m.Header.Type == unix.SCM_CREDENTIALS && n == unix.SizeofUcred:
			if cred, err := unix.ParseUnixCredentials(m); err == nil {
				sender = cred
			}
		}
	}
	return fds, sender
}

// WriteNow writes as much as possible without blocking: EAGAIN if nothing. The
// descriptors are sent with the first byte.
func (c *Conn) WriteNow(p []byte, fds ...int) (n int, err error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	cerr := c.raw.Control(func(fd uintptr) {
		for {
			n, err = unix.SendmsgN(int(fd), p, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return 0, os.ErrClosed
	}
	return max(n, 0), err
}

// Write writes all of p, with the descriptors attached to its first byte. The receiver
// gets duplicates; the caller keeps its own.
func (c *Conn) Write(p []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			var n int
			n, err = unix.SendmsgN(int(fd), p, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch err {
			case nil:
				p, oob = p[n:], nil
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				return true
			}
		}
		return true
	})
	if werr != nil {
		return waited(werr)
	}
	return err
}

// FD is the descriptor, for storing a duplicate; 0 when it is closed.
func (c *Conn) FD() (fd int) {
	c.raw.Control(func(n uintptr) { fd = int(n) })
	return fd
}

// SyscallConn is the descriptor, for options of its own.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// SetReadDeadline limits later Receives.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline limits later Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// CloseAll closes unused descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
