package integration

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A second copy of the program that somebody starts by hand joins with SO_REUSEPORT: it is
// named, gets no connection, and changes nothing for the others, over reloads and when it
// leaves.
func TestSecondCopyByHand(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t)}})
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{}, 1000)
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			got <- struct{}{}
			c.Close()
		}
	}()
	reloadsOf(t, w, 2, 2)
	if said := w.all("address.stranger"); len(said) != 1 || !strings.Contains(said[0].Msg, "integration.tes" /* 15 bytes */ +" (pid ") {
		t.Errorf("said %+v, want once, by name", said)
	}
	l.Close()
	reloadsOf(t, w, 2, 2)
	if len(got) > 0 {
		t.Errorf("the second copy got %d connections", len(got))
	}
	if said := w.all("address.stranger"); len(said) != 2 {
		t.Errorf("said %+v, want that it has left", said)
	}
	w.stop()
}
