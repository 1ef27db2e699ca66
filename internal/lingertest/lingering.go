// Package lingertest makes sockets whose close(2) takes long, for tests.
package lingertest

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is one whose close takes a minute: it has what nobody reads, and its owner
// wants to wait for that. undo ends the wait.
func Socket(t *testing.T) (fd int, undo func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for b := make([]byte, 1<<20); ; {
		if _, err := c.Write(b); err != nil {
			break // nothing fits any more
		}
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	f.Close()
	if err == nil {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 60})
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd, func() {
		peer.(*net.TCPConn).SetLinger(0)
		peer.Close() // a reset
	}
}
