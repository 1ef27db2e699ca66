package takeover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
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
		fd, from, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
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
		go p.splice(fd, from, m.Peers) // ends with the connection
	}
}

// hops knows the connections of this process: one that it has made may wait in the queue of
// a worker that dies, too. It is safe for concurrent use.
type hops struct {
	mu   sync.Mutex // for a moment
	made map[netip.AddrPort]int
}

// maxHops is how often a connection is passed on. If it meets another dead worker each time,
// nobody serves, and it would be passed in a circle.
const maxHops = 3

// of returns how often the connection from a client has been passed on already.
func (h *hops) of(from unix.Sockaddr) int {
	var at netip.AddrPort
	switch sa := from.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made[at]
}

// add notes a connection that was made for one that had been passed on n times before; forget
// has it forgotten.
func (h *hops) add(made net.Conn, n int) (forget func()) {
	a, ok := made.LocalAddr().(*net.TCPAddr)
	if !ok {
		return func() {}
	}
	at := a.AddrPort()
	at = netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.made == nil {
		h.made = map[netip.AddrPort]int{}
	}
	h.made[at] = n + 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.made, at)
	}
}

// splice passes the bytes of a connection to a live worker and back.
func (p *process) splice(fd int, from unix.Sockaddr, peers Peers) {
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
	time.Sleep(hopLook)
	n := p.hops.of(from)
	if n >= maxHops {
		c.Close()
		return
	}
	time.Sleep(time.Duration(n) * hopPause)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	w, err := relay.DialFrom(ctx, c, peers.mode())
	cancel()
	if err != nil {
		c.Close()
		return
	}
	defer p.hops.add(w, n)()
	relay.Splice(c, w)
}

const (
	dialTimeout = 10 * time.Second
	// hopPause is how long a connection waits that has met a dead worker again, for each time:
	// perhaps one has started then.
	hopPause = 100 * time.Millisecond
	// hopLook is more than passes between a connect(2) of this process and its note of it.
	hopLook = 2 * time.Millisecond
)

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
