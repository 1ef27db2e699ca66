package master

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// ask identifies an address by what workers ask for: equal asks, of one worker
// after another or of several, mean the same sockets.
type ask struct {
	kind   nodeipc.AddressType
	addr   string
	any    bool
	port   int
	v6only bool
	index  int // tells several ports 0 of one program apart
}

func askOf(q nodeipc.Query, dir string) ask {
	a := ask{kind: q.Type, addr: q.Address, any: q.Any, port: q.Port, v6only: q.V6Only}
	if q.Type == nodeipc.Pipe {
		if !filepath.IsAbs(a.addr) && a.addr != "" && a.addr[0] != 0 {
			a.addr = filepath.Join(dir, a.addr)
		}
		return a
	}
	if q.Port == 0 {
		a.index = q.Index
	}
	return a
}

// means tells whether a worker that listens there does so by this ask.
func (a ask) means(l nodeipc.Listening, dir string) bool {
	other := askOf(nodeipc.Query{Type: l.Type, Address: l.Address, Any: l.Address == "", Port: l.Port, V6Only: a.v6only, Index: l.Index}, dir)
	if a.port == 0 && a.kind != nodeipc.Pipe {
		other.port, other.index = 0, l.Index
	}
	return a == other
}

// hold is a worker's share of an address.
type hold struct {
	worker    fleet.ID
	slot      int
	socket    *handoff.Socket // nil for a shared one
	listening bool            // the worker has said that it accepts
	given     bool            // it was given at the start, and the worker has not bound it
}

// address is what the workers listen on: a group, or one socket shared by all.
type address struct {
	key    string // names it in the workers' messages
	ask    ask
	name   string // for people
	group  *handoff.Group
	shared *shared
	data   json.RawMessage // TLS ticket keys: the same for all workers, as the first one sent them
	holds  []*hold
	unheld time.Time // since when nobody has it; zero: somebody does
	mended time.Time // last look for mischief
	given  bool      // to every worker at its start: held to the end
}

func (a *address) holdOf(id fleet.ID) *hold {
	for _, h := range a.holds {
		if h.worker == id {
			return h
		}
	}
	return nil
}

func (a *address) holdOfSocket(s *handoff.Socket) *hold {
	for _, h := range a.holds {
		if h.socket == s {
			return h
		}
	}
	return nil
}

// addresses is the register of what is listened on. It belongs to the loop.
type addresses struct {
	watch     *handoff.Watch
	balance   handoff.Balance
	noProgram bool
	list      []*address
	last      int
	grace     time.Duration // for which an address that nobody holds is kept
	seats     []fleet.ID    // by slot, who is steered to; 0 is nobody
	inherited []*inherited  // passed by a service manager, and not asked for yet
	scratch   bool          // an address of loopback's where nobody else is, whatever is asked for
	say       func(string)  // a warning
	keep      *fdstore.Client
}

// provide answers a worker's query: with a descriptor and its kind, which stays
// the register's, or with an errno. The key is the one to answer with.
func (as *addresses) provide(id fleet.ID, slot int, q nodeipc.Query, dir string) (a *address, fd int, kind nodeipc.HandleType, err error) {
	want := askOf(q, dir)
	if a = as.find(want); a == nil {
		if a, err = as.open(want, nil); err != nil {
			return nil, -1, "", err
		}
		a.data = q.Data
	} else if a.holdOf(id) != nil {
		return nil, -1, "", unix.EADDRINUSE // one process, two equal listens
	}
	h, err := a.take(id, slot)
	if err != nil {
		return nil, -1, "", err
	}
	if h.socket == nil {
		return a, a.shared.fd, a.shared.kind, nil
	}
	return a, h.socket.FD(), nodeipc.Stream, nil
}

// find returns the address of an ask, nil if nobody has asked yet.
func (as *addresses) find(want ask) *address {
	i := slices.IndexFunc(as.list, func(a *address) bool { return a.ask == want })
	if i < 0 {
		return nil
	}
	return as.list[i]
}

// take gives a worker its share of an address.
func (a *address) take(id fleet.ID, slot int) (h *hold, err error) {
	h = &hold{worker: id, slot: slot}
	if a.group != nil {
		if h.socket, err = a.group.Take(slot); err != nil {
			return nil, err
		}
	}
	a.holds = append(a.holds, h)
	a.unheld = time.Time{}
	return h, nil
}

// open makes the address of an ask. own gives the file of a new path its owner,
// before anybody can connect.
func (as *addresses) open(want ask, own func() error) (*address, error) {
	as.last++
	a := &address{key: strconv.Itoa(as.last), ask: want}
	if as.scratch {
		want.any, want.addr = false, scratchAddr(want)
	}
	var err error
	switch want.kind {
	case nodeipc.Pipe:
		fd := as.passedWhere(func(i *inherited) bool { return i.path != "" && i.path == want.addr })
		if fd >= 0 {
			a.shared = &shared{fd: fd, kind: nodeipc.Stream}
		} else {
			a.shared, err = openUnix(want.addr, own)
		}
		a.name = want.addr
	case nodeipc.UDP4, nodeipc.UDP6:
		a.shared, err = openUDP(want)
		if err == nil {
			a.name = "udp " + a.shared.name
		}
	default:
		a.group, err = as.listenTCP(want)
		if err == nil {
			a.name = a.group.Addr().String()
		}
	}
	if err != nil {
		return nil, err
	}
	if a.shared != nil {
		as.keep.Store(fdstore.SharedName(a.key), a.shared.fd)
	}
	as.list = append(as.list, a)
	return a, nil
}

// scratchAddr is where nobody else is: of a program that is only tried. The port stays
// (Node compares it), the address is one of loopback's 16 million, beside who has the
// port: nothing that is sent to others comes here.
func scratchAddr(want ask) string {
	if want.kind == nodeipc.Pipe {
		return want.addr + ".try-" + strconv.Itoa(os.Getpid())
	}
	n := uint32(os.Getpid()) * 2654435761
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>24%254), byte(n >> 16), byte(1 + n>>8%254)}).String()
}

// adopt makes an address of a socket that a worker has bound, which it takes
// over: a port 0 of its own choice.
func (as *addresses) adopt(want ask, fd int) (*address, error) {
	g, err := handoff.Adopt(as.config(want.v6only), fd)
	if err != nil {
		return nil, err
	}
	as.last++
	a := &address{key: strconv.Itoa(as.last), ask: want, group: g, name: g.Addr().String()}
	as.list = append(as.list, a)
	return a, nil
}

func (as *addresses) config(v6only bool) handoff.Config {
	return handoff.Config{V6Only: v6only, Balance: as.balance, Watch: as.watch, NoProgram: as.noProgram,
		Joined: func(s *handoff.Socket) { as.keep.Store(fdstore.SocketName(s.Inode()), s.FD()) },
		Left:   func(s *handoff.Socket) { as.keep.Remove(fdstore.SocketName(s.Inode())) }}
}

func (as *addresses) listenTCP(want ask) (*handoff.Group, error) {
	if want.port < 0 || want.port > 65535 {
		return nil, unix.EINVAL
	}
	g, err := as.listenOrFail(want)
	if errors.Is(err, unix.EADDRINUSE) {
		who := handoff.Listeners(netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(want.port)))
		if len(who) == 0 {
			who = []string{"a process that may not be seen"}
		}
		return nil, &inUse{err, who}
	}
	return g, err
}

// inUse says who has an address.
type inUse struct {
	error
	who []string
}

func (e *inUse) Unwrap() error { return e.error }

func (e *inUse) Error() string {
	return e.error.Error() + ": " + strings.Join(e.who, ", ") + " listens there"
}

func (as *addresses) listenOrFail(want ask) (*handoff.Group, error) {
	cfg := as.config(want.v6only)
	cfg.Beside = as.scratch
	if !want.any {
		addr, err := netip.ParseAddr(want.addr)
		if err != nil {
			return nil, unix.EINVAL
		}
		cfg.Addr = netip.AddrPortFrom(addr, uint16(want.port))
		return as.listen(cfg)
	}
	// No address means both families where there are both, as Node's own
	// primary has it.
	cfg.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(want.port))
	v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(want.port))
	if as.hasPassed(v4) {
		cfg.Addr = v4
		return as.listen(cfg)
	}
	g, err := as.listen(cfg)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL) {
		cfg.Addr = v4
		return as.listen(cfg)
	}
	return g, err
}

// heldBy counts the addresses of a worker.
func (as *addresses) heldBy(id fleet.ID) int {
	n := 0
	for _, a := range as.list {
		if a.holdOf(id) != nil {
			n++
		}
	}
	return n
}

// byKey returns the address that a worker knows by that key.
func (as *addresses) byKey(key string) *address {
	for _, a := range as.list {
		if a.key == key {
			return a
		}
	}
	return nil
}

// release takes a worker's share back.
func (as *addresses) release(a *address, id fleet.ID, now time.Time) {
	if a.holdOf(id) == nil {
		return
	}
	a.holds = slices.DeleteFunc(a.holds, func(h *hold) bool {
		if h.worker == id && h.socket != nil {
			a.group.Release(h.socket)
		}
		return h.worker == id
	})
	if len(a.holds) == 0 {
		a.unheld = now
	}
}

// releaseAll takes back all that a dead worker had.
func (as *addresses) releaseAll(id fleet.ID, now time.Time) {
	for _, a := range as.list {
		as.release(a, id, now)
	}
}

// steer applies the seats to every group. It is called whenever the seats, or
// what their workers listen on, have changed.
func (as *addresses) steer() error {
	var errs []error
	for _, a := range as.list {
		if a.group == nil {
			continue
		}
		errs = append(errs, a.group.Steer(a.seatsOf(as.seats)))
		for _, s := range a.group.Sockets() {
			if !s.Held() {
				// What came while nobody could take it is told of again.
				a.group.Rearm(s)
			}
		}
	}
	return errors.Join(errs...)
}

// seatsOf returns the sockets at which workers accept, in their order, nil for one
// that has none. A program that opens several on one address has several.
func (a *address) seatsOf(workers []fleet.ID) (seats []*handoff.Socket) {
	of := make(map[fleet.ID][]*handoff.Socket, len(a.holds))
	for _, h := range a.holds {
		if h.listening && h.socket != nil {
			of[h.worker] = append(of[h.worker], h.socket)
		}
	}
	for _, id := range workers {
		if own := of[id]; id != 0 && own != nil {
			seats = append(seats, own...)
		} else {
			seats = append(seats, nil)
		}
	}
	return seats
}

// ofSocket returns the address that a socket belongs to.
func (as *addresses) ofSocket(s *handoff.Socket) *address {
	for _, a := range as.list {
		if a.group != nil && a.group.Has(s) {
			return a
		}
	}
	return nil
}

// deadline is when tick wants to be called, zero if it does not.
func (as *addresses) deadline() time.Time {
	var next time.Time
	for _, a := range as.list {
		if a.group != nil {
			next = earlier(next, a.group.Deadline())
		}
		if !a.unheld.IsZero() && !a.given {
			next = earlier(next, a.unheld.Add(as.grace))
		}
	}
	return next
}

// unheldGrace is how long, at least, an address is kept for which no worker asks
// any more: one that closes its server may be about to end, and its successor
// asks for it again, or it asks late. Connections wait meanwhile.
const unheldGrace = 5 * time.Second

// tick keeps the balance, and gives up addresses that nobody has used for a
// while, unless workers are missing that might ask for them.
func (as *addresses) tick(now time.Time, complete bool) (given []*address, err error) {
	var errs []error
	as.list = slices.DeleteFunc(as.list, func(a *address) bool {
		if a.group != nil {
			errs = append(errs, a.group.Tick(now))
		}
		if a.given || a.unheld.IsZero() || now.Before(a.unheld.Add(as.grace)) {
			return false
		}
		if !complete {
			a.unheld = now // look again later
			return false
		}
		as.close(a)
		given = append(given, a)
		return true
	})
	return given, errors.Join(errs...)
}

func (as *addresses) close(a *address) {
	if a.group != nil {
		a.group.Close()
	} else {
		as.keep.Remove(fdstore.SharedName(a.key))
		a.shared.close()
	}
}

// closeAll gives every address up. Workers still have their duplicates.
func (as *addresses) closeAll() {
	for _, a := range as.list {
		as.close(a)
	}
	for _, i := range as.inherited {
		unix.Close(i.FD)
	}
	as.list, as.inherited = nil, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// errno is what a program is told of an error.
func errno(err error) int {
	var e unix.Errno
	if errors.As(err, &e) {
		return int(e)
	}
	return int(unix.EINVAL)
}

// ownSocket takes a duplicate of a descriptor that a worker wants to serve on
// and that it has itself: listen({fd}). The caller owns it.
func ownSocket(p *process, fd int) (int, error) {
	got := -1
	err := p.control(func(pidfd int) (err error) {
		got, err = unix.PidfdGetfd(pidfd, fd, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	if _, err := unix.GetsockoptInt(got, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		unix.Close(got)
		return -1, unix.EINVAL
	}
	// Node up to 18 takes a handle from its primary as non-blocking already,
	// and would stand in accept(2) for ever.
	if err := unix.SetNonblock(got, true); err != nil {
		unix.Close(got)
		return -1, err
	}
	return got, nil
}

// shared is one socket for all workers: a unix path, or UDP.
type shared struct {
	fd   int
	kind nodeipc.HandleType
	name string
	path string   // to remove at the end; "" if there is none
	file unixFile // what the path was when we made it
}

type unixFile struct{ dev, ino uint64 }

func openUDP(want ask) (*shared, error) {
	v6 := want.kind == nodeipc.UDP6
	addr := netip.IPv4Unspecified()
	if v6 {
		addr = netip.IPv6Unspecified()
	}
	if !want.any {
		var err error
		if addr, err = netip.ParseAddr(want.addr); err != nil || addr.Is6() != v6 {
			return nil, unix.EINVAL
		}
	}
	if want.port < 0 || want.port > 65535 {
		return nil, unix.EINVAL
	}
	fd, at, err := handoff.BindUDP(netip.AddrPortFrom(addr, uint16(want.port)), want.v6only)
	if err != nil {
		return nil, err
	}
	return &shared{fd: fd, kind: nodeipc.Datagram, name: at.String()}, nil
}

// openUnix listens on a path, which it takes over if nobody answers there: the
// socket of a server that was killed.
func openUnix(path string, own func() error) (*shared, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	sa := &unix.SockaddrUnix{Name: path}
	err = unix.Bind(fd, sa)
	if err == unix.EADDRINUSE && stale(path) {
		os.Remove(path)
		err = unix.Bind(fd, sa)
	}
	bound := err == nil
	if bound && own != nil {
		err = own()
	}
	if err == nil {
		err = unix.Listen(fd, -1)
	}
	if err != nil {
		unix.Close(fd)
		if bound {
			os.Remove(path)
		}
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	s := &shared{fd: fd, kind: nodeipc.Stream, name: path}
	if path != "" && path[0] != 0 && path[0] != '@' {
		s.path = path
		s.file, _ = fileOf(path)
	}
	return s, nil
}

// stale tells whether a path is a socket at which nobody listens.
func stale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == unix.ECONNREFUSED
}

func fileOf(path string) (unixFile, bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return unixFile{}, false
	}
	return unixFile{uint64(st.Dev), st.Ino}, true
}

func (s *shared) close() {
	unix.Close(s.fd)
	if s.path != "" {
		// Somebody may have put another socket in its place.
		if f, ok := fileOf(s.path); ok && f == s.file {
			os.Remove(s.path)
		}
	}
}
