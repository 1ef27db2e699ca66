package handoff

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRights is how many descriptors one message may carry (SCM_MAX_FD).
const maxRights = 253

// Conn is one end of a stream socketpair over which descriptors can be passed.
// One goroutine may read while another writes.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	oob  []byte // the reader's
}

// Pair returns two connected ends: ours, and an inheritable file for a child,
// which the caller closes once the child has it.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot create a socketpair: %w", err)
	}
	// Only our end is made non-blocking: O_NONBLOCK is on the description,
	// and the child decides for its own.
	if err = unix.SetNonblock(fds[0], true); err == nil {
		var c *Conn
		if c, err = newConn(os.NewFile(uintptr(fds[0]), "channel")); err == nil {
			return c, os.NewFile(uintptr(fds[1]), "channel"), nil
		}
	}
	unix.Close(fds[0])
	unix.Close(fds[1])
	return nil, nil, err
}

func newConn(file *os.File) (*Conn, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{file: file, raw: raw, oob: make([]byte, unix.CmsgSpace(4*maxRights))}, nil
}

// Close ends a Read or Write under way, which then returns os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// Read reads once. The descriptors that came with the bytes are the caller's,
// close-on-exec. n is 0 at the end of the stream, with no error.
func (c *Conn) Read(p []byte) (n int, fds []int, err error) {
	var oobn int
	rerr := c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), p, c.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if rerr != nil {
		return 0, nil, rerr
	}
	if err != nil {
		return 0, nil, err
	}
	return n, rights(c.oob[:oobn]), nil
}

// rights unpacks descriptors from a control message; anything else in it is
// ignored.
func rights(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// Write writes all of p, with the descriptors attached to its first byte. The
// receiver gets duplicates; the caller's stay its own.
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
		return werr
	}
	return err
}

// OpenConn makes a Conn of a descriptor, which it owns.
func OpenConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newConn(os.NewFile(uintptr(fd), "channel"))
}

// FD is the descriptor, for who keeps a duplicate; 0 when it is closed.
func (c *Conn) FD() (fd int) {
	c.raw.Control(func(n uintptr) { fd = int(n) })
	return fd
}

// DialNotify connects to a notify socket (sd_notify(3)): a path, or a name that
// begins with @. Each Write is one datagram.
func DialNotify(name string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return OpenConn(fd)
}

// SetReadDeadline bounds the Reads from now on.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline bounds the Writes from now on.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
