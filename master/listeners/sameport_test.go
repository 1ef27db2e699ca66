package listeners

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// TCP and UDP of one address and port are two addresses (DNS, HTTP/3).
func TestSamePort(t *testing.T) {
	table, err := New(Config{Store: noStore{}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	// An address of its own: a connection of another test may have the port at 127.0.0.1.
	fd, at, err := handoff.BindUDP(netip.MustParseAddrPort("127.77.1.9:0"), false)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	own, _ := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if _, err := table.BindDatagram(Owner{Worker: 1, Open: func(uint64) bool { return true }}, UDP(at, false), own); err != nil {
		t.Fatal(err)
	}
	if a := table.At(at, false); a != nil {
		t.Errorf("a TCP socket at %v would join %s", at, a.Name())
	}
	if list := table.Overlapping(at, false); len(list) > 0 {
		t.Errorf("a TCP socket at %v is beside %s", at, list[0].Name())
	}
	a, err := table.Open(TCP(at, false))
	if err != nil {
		t.Fatal(err)
	}
	if got := table.At(at, false); got != a {
		t.Errorf("TCP is at %v", got)
	}
}
