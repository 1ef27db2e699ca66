package takeover

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What waits for a worker that has died is answered by another, whoever speaks first, and
// however much there is. No byte was read of it.
func TestEmpty(t *testing.T) {
	t.Parallel()
	dead := listen(t, "127.0.0.1:0")
	at := dead.Addr().String()
	clients := make([]*client, 40)
	for i := range clients {
		clients[i] = dial(t, at)
		if i%2 == 0 {
			clients[i].send("POST", "/", fmt.Sprint(i))
		}
	}
	clients[0].Conn.(interface{ CloseWrite() error }).CloseWrite()
	run(t, "shutdown", "next", steerAway(t, dead, at))
	m := newMaster(t)
	file, err := dead.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if e, err := m.Empty(Queue{Number: 1, Socket: int(file.Fd()), Peers: Local}); err != nil || e != (Emptied{Number: 1, Taken: 40}) {
		t.Fatalf("%+v, %v", e, err)
	}
	for i, c := range clients {
		if i%2 == 1 {
			c.send("POST", "/", fmt.Sprint(i))
		}
		c.hears(fmt.Sprint("next", i), false)
		c.Close()
	}
	m.rests()
	if want := (Totals{Rescued: 40}); m.all != want {
		t.Errorf("totals %+v, not %+v", m.all, want)
	}
}

// One client of another machine is enough for a queue to be left as it is.
func TestRemoteWaits(t *testing.T) {
	addr := netip.MustParseAddrPort
	own := func(a netip.Addr) bool { return a.IsLoopback() }
	for _, row := range []struct {
		local, remote, at string
		inode             uint64
		want              bool
	}{
		{"127.0.0.1:80", "127.0.0.1:5", "0.0.0.0:80", 0, false},
		{"10.0.0.1:80", "192.0.2.1:5", "0.0.0.0:80", 0, true},
		{"10.0.0.1:80", "192.0.2.1:5", "10.0.0.1:80", 0, true},
		{"10.0.0.1:80", "192.0.2.1:5", "[::]:80", 0, true},
		{"10.0.0.1:80", "192.0.2.1:5", "0.0.0.0:80", 7, false}, // somebody has it
		{"10.0.0.1:80", "192.0.2.1:5", "10.0.0.2:80", 0, false},
	} {
		if got := waitsFrom(connection{Local: addr(row.local), Remote: addr(row.remote), Inode: row.inode}, addr(row.at), own); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

// steerAway opens another socket at the address, and has new connections go to that one.
func steerAway(t *testing.T, from interface{ File() (*os.File, error) }, at string) interface {
	File() (*os.File, error)
	io.Closer
} {
	t.Helper()
	next := listen(t, at)
	f, err := from.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	second := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	if err := unix.SetsockoptSockFprog(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &second[0]}); err != nil {
		t.Fatal(err)
	}
	return next
}

// Where nobody serves, what is passed on comes to the same queue: it is not passed in a
// circle for ever, as two descriptors each time.
func TestNobodyServes(t *testing.T) {
	t.Parallel()
	dead := listen(t, "127.0.0.1:0")
	c := dial(t, dead.Addr().String())
	m := newMaster(t)
	file, err := dead.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ended := make(chan error, 1)
	go func() { // ends when the connection is closed
		_, err := c.Conn.Read(make([]byte, 1))
		ended <- err
	}()
	taken := 0
	for number := 1; ; number++ {
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}, 10); n == 0 {
			select {
			case err := <-ended:
				if taken <= maxHops || taken > 4*maxHops { // more: a look came before the note of a hop
					t.Errorf("passed on %d times, not %d (%v)", taken, maxHops+1, err)
				}
				c.Close()
				m.rests()
				return
			default:
				continue
			}
		}
		e, err := m.Empty(Queue{Number: number, Socket: int(file.Fd()), Peers: Local})
		if err != nil {
			t.Fatal(err)
		}
		taken += e.Taken
	}
}
