package listeners

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

type noStore struct{}

func (noStore) Store(string, int) error { return nil }
func (noStore) Remove(string)           {}

// A socket that a worker has bound to an address that is held, though it was asked for
// port 0 (the address has changed while it was read), makes no second address of it.
func TestAdoptOfAHeldAddress(t *testing.T) {
	table, err := New(Config{Store: noStore{}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	a, err := table.Open(TCP(netip.MustParseAddrPort("127.0.0.1:0"), false))
	if err != nil {
		t.Fatal(err)
	}
	socket := func(at netip.AddrPort) int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	chosen := TCP(netip.MustParseAddrPort("127.0.0.1:0"), false)
	chosen.Index = 1
	if _, err := table.Adopt(chosen, socket(a.group.Addr())); !errors.Is(err, unix.EADDRINUSE) || len(table.Addresses()) != 1 {
		t.Errorf("%v, %d addresses", err, len(table.Addresses()))
	}
	fd := socket(netip.MustParseAddrPort("127.0.0.1:0"))
	at, _ := handoff.Bound(fd)
	if b, err := table.Adopt(chosen, fd); err != nil || b.group.Addr() != at {
		t.Error(err)
	}
}
