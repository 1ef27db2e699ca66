package bindintercept

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What a bind came to is seen at the next call of the thread: one that has failed is told,
// and leaves SO_REUSEPORT as the program had it.
func TestFailedBind(t *testing.T) {
	p := start(t, "socket tcp4", "bind 192.0.2.9:4000", "listen", "socket tcp4", "bind 127.0.0.1:0", "port", "socket tcp4", "bind 127.0.0.9:4001", "listen", "pause")
	first := p.next()
	first.Beside()
	first.Continue()
	second := p.next()
	if want := (Failed{first.Inode, first.Addr}); len(second.Failed) != 1 || second.Failed[0] != want {
		t.Errorf("the listen tells of %v, want %v", second.Failed, want)
	}
	fd, err := second.Socket()
	if err != nil {
		t.Fatal(err)
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); on != 0 {
		t.Error("SO_REUSEPORT stays set on a socket that was not bound", err)
	}
	unix.Close(fd)
	second.Continue()
	for c := p.next(); c != nil; c = p.next() {
		if c.Failed != nil {
			t.Errorf("%+v: %v", c.Request, c.Failed)
		}
		last := c.Listen
		c.Continue()
		if last {
			break
		}
	}
	p.wants("socket ok", "bind EADDRNOTAVAIL", "listen ok", "socket ok", "bind ok")
}
