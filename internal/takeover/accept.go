package takeover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/relay"
)

// Queue is the accept queue of a socket that no worker accepts from: its worker has died.
// What waits there, nobody has read a byte of, so it can be passed on whatever it speaks.
type Queue struct {
	Number int // never used again
	Socket int // a duplicate; stays the caller's
	Peers  Peers
	// Stored is called with the process's descriptors, if it is started for this.
	Stored func(pidfd, socket int)
}

// Emptied tells what became of a queue.
type Emptied struct {
	Number int `json:"number"`
	Taken  int `json:"taken"`          // passed on to who serves the address now
	Left   int `json:"left,omitempty"` // where they are: of clients that Peers leaves out
}

// Empty has the relay process accept what waits in a queue, and pass it on to live workers.
// It returns when all of it has been accepted.
func (c *Client) Empty(q Queue) (Emptied, error) {
	if err := c.start(q.Stored); err != nil {
		return Emptied{}, err
	}
	key := -2 - q.Number // workers have the others
	wait := c.expect(key)
	defer c.forget(key)
	m, err := c.ask(message{Accept: &acceptMessage{q.Number, q.Peers}}, []int{q.Socket}, wait, armTimeout)
	if err != nil {
		return Emptied{}, err
	}
	if m.Emptied == nil {
		return Emptied{}, errors.New("the relay process answers something else")
	}
	return *m.Emptied, nil
}

// empty accepts what waits, and passes it on. It has a goroutine of its own: a process that
// has had the socket from its worker may hold its lock.
func (p *process) empty(m acceptMessage, listener int) {
	e := Emptied{Number: m.Number}
	defer func() { p.reports <- report{emptied: &e} }()
	defer unix.Close(listener)
	n, err := waiting(listener)
	if err != nil || n == 0 {
		return
	}
	// Those of other machines are known before anything is accepted: none can be put back.
	// What comes after this look is behind the n in the queue.
	if ok, err := allOf(listener, m.Peers); err != nil || !ok {
		e.Left = n
		return
	}
	if unix.SetNonblock(listener, true) != nil {
		e.Left = n
		return
	}
	for e.Taken < n {
		p.slots <- struct{}{} // of its two descriptors
		p.slots <- struct{}{}
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.ECONNABORTED || err == unix.EINTR {
			n--
		}
		if err != nil {
			<-p.slots
			<-p.slots
			if err != unix.ECONNABORTED && err != unix.EINTR {
				return // a worker has it again, or there are no more
			}
			continue
		}
		e.Taken++
		p.reports <- report{spliced: 1, add: Totals{Rescued: 1, Owned: 1}}
		go p.splice(fd, m.Peers) // ends with the connection
	}
}

// splice passes the bytes of a connection to a live worker and back.
func (p *process) splice(fd int, peers Peers) {
	defer func() {
		<-p.slots
		<-p.slots
		p.reports <- report{spliced: -1, add: Totals{Owned: -1}}
	}()
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	w, err := relay.DialFrom(ctx, c, peers.mode())
	cancel()
	if err != nil {
		c.Close()
		return
	}
	relay.Splice(c, w)
}

const dialTimeout = 10 * time.Second

func (p Peers) mode() relay.Mode {
	if p == All {
		return relay.All
	}
	return relay.Local
}

// waiting is the length of an accept queue.
func waiting(listener int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(listener, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	if info.State != stateListen {
		return 0, errors.New("it does not listen")
	}
	return int(info.Unacked), nil
}

// allOf reports whether all connections that nobody has accepted at the listener's address,
// whichever socket of it they wait at, are of clients of the kind.
func allOf(listener int, peers Peers) (bool, error) {
	if peers == All {
		return true, nil
	}
	sa, err := unix.Getsockname(listener)
	if err != nil {
		return false, err
	}
	var at netip.AddrPort
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	default:
		return false, fmt.Errorf("an address of another kind: %T", sa)
	}
	own, err := ownAddresses()
	if err != nil {
		return false, err
	}
	all, err := connections(at.Port(), stateEstablished, stateCloseWait)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(all, func(c connection) bool { return waitsFrom(c, at, own) }), nil
}

// waitsFrom reports whether a connection waits at an address, and its client is another's.
func waitsFrom(c connection, at netip.AddrPort, own func(netip.Addr) bool) bool {
	return c.Inode == 0 && held([]netip.AddrPort{at}, c.Local) && !own(c.Remote.Addr())
}
