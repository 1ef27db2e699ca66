package listeners

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/cmsg"
)

// world is a table, its store, and a clock that the test moves.
type world struct {
	*testing.T
	*Table
	store store
	now   time.Time
	seen  []Notice // taken out of the table, not asked for yet
}

// store keeps duplicates, as a keeper does.
type store map[string]int

func (s store) Store(name string, fd int) error {
	s.Remove(name)
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	s[name] = dup
	return err
}

func (s store) Remove(name string) {
	if fd, ok := s[name]; ok {
		unix.Close(fd)
		delete(s, name)
	}
}

// take hands a descriptor over.
func (s store) take(name string) int {
	fd, ok := s[name]
	if !ok {
		return -1
	}
	delete(s, name)
	return fd
}

func start(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{T: t, store: store{}, now: time.Now()}
	cfg.Store = w.store
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	var err error
	if w.Table, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		if len(w.store) > 0 {
			t.Errorf("the store still has %v", w.store)
		}
	})
	return w
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.Tick(w.now)
	w.seen = append(w.seen, w.Notices()...)
}

// await returns the next notice of a type.
func await[N Notice](w *world) (n N) {
	w.Helper()
	for range 1000 {
		w.pass(time.Millisecond)
		for len(w.seen) > 0 {
			got := w.seen[0]
			w.seen = w.seen[1:]
			if n, ok := got.(N); ok {
				return n
			}
		}
		if err := w.Wait(); err != nil {
			w.Fatal(err)
		}
	}
	w.Fatalf("no %T", n)
	return n
}

// none fails if a notice of a type has come.
func none[N Notice](w *world) {
	w.Helper()
	w.pass(0)
	for _, n := range w.seen {
		if _, ok := n.(N); ok {
			w.Errorf("%+v", n)
		}
	}
	w.seen = nil
}

func tcp(at string) Endpoint { return TCP(netip.MustParseAddrPort(at), false) }

// lease gives a worker its share, on which it accepts.
func (w *world) lease(id Worker, slot int, e Endpoint) *Lease {
	w.Helper()
	l, err := w.Lease(id, slot, e, nil)
	if err != nil {
		w.Fatal(err)
	}
	l.Listening()
	return l
}

// connect makes a connection to an address, which goes to one of its queues.
func (w *world) connect(a *Address) net.Conn {
	w.Helper()
	c, err := net.Dial("tcp", a.Name())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// accept takes n connections out of a worker's queue, as the worker would.
func (w *world) accept(l *Lease, n int) {
	w.Helper()
	for range n {
		unix.Poll([]unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}, 20_000)
		fd, _, err := unix.Accept4(l.FD(), unix.SOCK_CLOEXEC)
		if err != nil {
			w.Fatal(err)
		}
		unix.Close(fd)
	}
}

func (w *world) steer(targets ...Worker) {
	w.Helper()
	w.SetTargets(targets)
	if err := w.Steer(); err != nil {
		w.Fatal(err)
	}
}

func TestConnectionsGoToTheTargets(t *testing.T) {
	w := start(t, Config{})
	e := tcp("127.0.0.1:0")
	old, next := w.lease(1, 0, e), w.lease(2, 0, e)
	a := old.Address()
	if a != next.Address() || a != w.Find(e) || a != w.ByKey(a.Key()) || a.Endpoint() != e || old.Worker() != 1 || old.Type() != Stream {
		t.Errorf("%+v, %+v", old, next)
	}
	w.steer(1)
	w.connect(a)
	w.accept(old, 1)
	w.steer(2, 0)
	for range 5 {
		w.connect(a)
	}
	if r := w.Report(); r.Queues[1] != 0 || r.Queues[2] != 5 || r.Addresses[0] != (AddressReport{Name: a.Name(), Balance: "even", Queue: 5}) || r.MaxQueue < 5 {
		t.Errorf("%+v", r)
	}
	w.accept(next, 5)
	if !w.IsTarget(2) || w.IsTarget(1) || !slices.Equal(w.Targets(), []Worker{2, 0}) || !a.Accepts(2) || a.Accepts(3) || !a.Steerable() {
		t.Error("targets", w.Targets())
	}
	if got := w.InUse(); !slices.Equal(got, []string{a.Name()}) || len(w.Addresses()) != 1 {
		t.Errorf("in use: %v", got)
	}
	// Who does not accept yet gets nothing, though it is a target.
	three, err := w.Lease(3, 0, e, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.steer(3)
	w.connect(a)
	w.accept(next, 1)
	w.Listening(3, tcp(a.Name()))
	w.steer(3)
	w.connect(a)
	w.accept(three, 1)
}

func TestLeases(t *testing.T) {
	w := start(t, Config{})
	e := tcp("127.0.0.1:0")
	l, err := w.Lease(1, 0, e, json.RawMessage(`"keys"`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Lease(1, 0, e, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("one worker, the same twice: %v", err)
	}
	if l := w.lease(2, 1, e); string(l.Address().Data()) != `"keys"` {
		t.Errorf("data %s", l.Address().Data())
	}
	other := e
	other.Index = 1
	if w.lease(1, 0, other).Address() == l.Address() || w.Count(1) != 2 || w.Count(3) != 0 {
		t.Error("two ports 0 of one program are one address")
	}
	if w.LeaseOf(1, l.Inode()) != l || w.LeaseOf(2, l.Inode()) != nil {
		t.Error("not found by its socket")
	}
	inode := l.Inode()
	w.ReleaseAll(1, w.now)
	if w.Count(1) != 0 || w.Count(2) != 1 {
		t.Error("released", w.Count(1), w.Count(2))
	}
	// Its socket is parked, and given again.
	if again := w.lease(4, 0, e); again.Inode() != inode {
		t.Error("the parked socket is not given again")
	}
}

// A worker that says that it has closed its socket may still accept from it: nobody else
// gets it while it runs, over a change of masters, too.
func TestClosedByItsWorker(t *testing.T) {
	w := start(t, Config{})
	a, one, _ := two(w)
	inode := one.Inode()
	take := func(id Worker) uint64 {
		t.Helper()
		l, err := a.Take(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		return l.Inode()
	}
	w.Closed(a, 1, w.now)
	if a.LeaseOf(1) != nil || take(3) == inode {
		t.Error("another has its socket")
	}
	if take(1) != inode {
		t.Error("it does not get its own socket again")
	}
	w.Closed(a, 1, w.now)

	restored := start(t, Config{})
	if lost := restored.Restore(w.State(), w.store.take); len(lost) > 0 {
		t.Fatal(lost[0])
	}
	a = restored.ByKey(a.Key())
	if take(4) == inode || a.LeaseOf(1) != nil {
		t.Error("with the next master, another has its socket")
	}
	restored.ReleaseAll(1, w.now)
	if take(5) != inode {
		t.Error("when it is dead nobody gets it")
	}
}

func TestUnusedAddressIsClosed(t *testing.T) {
	w := start(t, Config{})
	l := w.lease(1, 0, tcp("127.0.0.1:0"))
	a := l.Address()
	if !w.Table.Deadline().IsZero() {
		t.Error("a deadline at rest")
	}
	w.Release(a, 1, w.now)
	w.Release(a, 1, w.now) // nothing
	if got := w.Table.Deadline(); !got.Equal(w.now.Add(5 * time.Second)) {
		t.Errorf("deadline in %v", got.Sub(w.now))
	}
	w.pass(4 * time.Second)
	none[Unused](w)
	w.pass(time.Second)
	if n := await[Unused](w); n.Address != a {
		t.Errorf("%+v", n)
	}
	w.lease(2, 0, a.Endpoint()) // meanwhile
	if w.CloseUnused(a) {
		t.Error("closed in use")
	}
	w.Release(a, 2, w.now)
	w.pass(5 * time.Second)
	await[Unused](w)
	w.pass(5 * time.Second) // kept, and reported again
	await[Unused](w)
	if !w.CloseUnused(a) || w.CloseUnused(a) || len(w.Addresses()) != 0 {
		t.Error("not closed")
	}
	if _, err := net.Dial("tcp", a.Name()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it answers: %v", err)
	}
}

func TestMeant(t *testing.T) {
	for _, c := range []struct {
		name        string
		asked, said Endpoint
		want        bool
	}{
		{"a port", Endpoint{Addr: "::", Family: IPv6, Port: 80, V6Only: true}, Endpoint{Addr: "::", Family: IPv6, Port: 80, Index: 7}, true},
		{"another port", Endpoint{Port: 80}, Endpoint{Port: 81}, false},
		{"port 0", Endpoint{Index: 2}, Endpoint{Port: 4711, Index: 2}, true},
		{"another port 0", Endpoint{Index: 2}, Endpoint{Port: 4711, Index: 1}, false},
		{"a path", Endpoint{Family: Unix, Addr: "/a", Port: -1}, Endpoint{Family: Unix, Addr: "/a", Port: -1, Index: 3}, true},
		{"another path", Endpoint{Family: Unix, Addr: "/a"}, Endpoint{Family: Unix, Addr: "/b"}, false},
		{"another type", Endpoint{Port: 80}, Endpoint{Port: 80, Type: Datagram}, false},
	} {
		if c.asked.meant(c.said) != c.want {
			t.Errorf("%s: not %v", c.name, c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	dir := t.TempDir()
	w := start(t, Config{})
	for i, c := range []struct {
		e    Endpoint
		name string // begins with
		typ  Type
	}{
		{Endpoint{Family: Unix, Addr: dir + "/s"}, dir + "/s", Stream},
		{Endpoint{Family: Unix, Addr: "@handoff-test-" + filepath.Base(dir)}, "@handoff-test-", Stream},
		{Endpoint{Type: Datagram, Addr: "127.0.0.1"}, "udp 127.0.0.1:", Datagram},
		{Endpoint{Type: Datagram, Any: true}, "udp 0.0.0.0:", Datagram},
		{Endpoint{Family: IPv6, Type: Datagram, Any: true}, "udp [::]:", Datagram},
		{Endpoint{Family: IPv6, Any: true}, "[::]:", Stream},
		{Endpoint{Family: IPv6, Addr: "::1", V6Only: true}, "[::1]:", Stream},
	} {
		one, two := w.lease(1, 0, c.e), w.lease(2, 1, c.e)
		if !strings.HasPrefix(one.Address().Name(), c.name) || one.Type() != c.typ {
			t.Errorf("%d: %s, %v", i, one.Address().Name(), one.Type())
		}
		if shared := one.FD() == two.FD(); shared != (c.typ == Datagram || c.e.Family == Unix) || shared != (one.Inode() == 0) {
			t.Errorf("%d: shared %v", i, shared)
		}
	}
	w.steer(1, 2)
	for _, e := range []Endpoint{
		{Addr: "host"}, {Port: 70000}, {Addr: "127.0.0.1", Port: -1},
		{Type: Datagram, Addr: "::1"}, {Type: Datagram, Addr: "x"}, {Type: Datagram, Any: true, Port: 70000},
		{Family: Unix, Addr: dir + "/none/s"},
	} {
		if l, err := w.Lease(1, 0, e, nil); err == nil {
			t.Errorf("%+v: %v", e, l.Address().Name())
		}
	}
	c, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	w.CloseAll()
	if _, err := os.Lstat(dir + "/s"); err == nil {
		t.Error("the path is still there")
	}
}

func TestUnixPaths(t *testing.T) {
	path := t.TempDir() + "/s"
	e := Endpoint{Family: Unix, Addr: path}
	w := start(t, Config{})
	// What a server that was killed has left is replaced; what one serves is not.
	fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	a := w.lease(1, 0, e).Address()
	if _, err := start(t, Config{}).Lease(1, 0, e, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("while it is served: %v", err)
	}
	// Somebody has put another file in its place: that one is left.
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Release(a, 1, w.now)
	if !w.CloseUnused(a) {
		t.Error("not closed")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if _, err := w.Lease(1, 0, e, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a file is taken for a stale socket: %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w := start(t, Config{})
	_, err = w.Open(tcp(ln.Addr().String()))
	var who *InUse
	if !errors.As(err, &who) || !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d) listens there", os.Getpid())) {
		t.Errorf("%v", err)
	}
}

// A program that is only tried is where nobody else is, on the port that it asks for.
func TestPrivate(t *testing.T) {
	served := start(t, Config{})
	at := netip.MustParseAddrPort(served.lease(1, 0, Endpoint{Family: IPv6, Any: true}).Address().Name())
	w := start(t, Config{Private: true})
	l := w.lease(1, 0, Endpoint{Family: IPv6, Any: true, Port: int(at.Port())})
	if got := netip.MustParseAddrPort(l.Address().Name()); got.Port() != at.Port() || !got.Addr().IsLoopback() || got.Addr().As4()[1] == 0 {
		t.Errorf("%v for %v", got, at)
	}
	path := t.TempDir() + "/s"
	if l := w.lease(1, 0, Endpoint{Family: Unix, Addr: path}); !strings.HasPrefix(l.Address().Name(), path+".try-") {
		t.Errorf("%v", l.Address().Name())
	}
}

// What a service manager has passed is used where it is asked for, and closed if it is
// not.
func TestPassedSockets(t *testing.T) {
	dir := t.TempDir()
	var named []cmsg.Named
	inode := map[string]uint64{}
	add := func(name string, family, typ int, sa unix.Sockaddr) {
		fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, sa)
		}
		if err != nil {
			t.Fatal(err)
		}
		if typ == unix.SOCK_STREAM {
			unix.Listen(fd, 10)
		}
		var st unix.Stat_t
		unix.Fstat(fd, &st)
		inode[name] = st.Ino
		named = append(named, cmsg.Named{Name: name, FD: fd})
	}
	add("four", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{})
	add("six", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Addr: [16]byte{15: 1}})
	add("path", unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: dir + "/s"})
	add("udp", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{})
	add("spare", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	port := func(fd int) int {
		sa, _ := unix.Getsockname(fd)
		if four, ok := sa.(*unix.SockaddrInet4); ok {
			return four.Port
		}
		return sa.(*unix.SockaddrInet6).Port
	}
	w := start(t, Config{})
	four, six, spare := port(named[0].FD), port(named[1].FD), port(named[4].FD)
	if err := w.Pass(named); err == nil || !strings.Contains(err.Error(), "is not a stream socket") {
		t.Errorf("a datagram socket: %v", err)
	}
	// No address was said, and IPv4's is what was passed.
	if l := w.lease(1, 0, Endpoint{Family: IPv6, Any: true, Port: four}); l.Inode() != inode["four"] {
		t.Error("not the socket that was passed")
	}
	if l := w.lease(1, 0, Endpoint{Family: IPv6, Addr: "::1", Port: six}); l.Inode() != inode["six"] {
		t.Error("not the socket that was passed")
	}
	w.lease(2, 1, Endpoint{Family: IPv6, Addr: "::1", Port: six}) // another one joins it
	l := w.lease(1, 0, Endpoint{Family: Unix, Addr: dir + "/s"})
	var st unix.Stat_t
	if unix.Fstat(l.FD(), &st); st.Ino != inode["path"] {
		t.Error("not the socket that was passed")
	}
	none[OneSocket](w)
	w.CloseAll()
	if _, err := os.Lstat(dir + "/s"); err != nil {
		t.Error("the service manager's path is removed")
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", spare)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("what nobody asked for still answers: %v", err)
	}
}

// The kernel's hash decides where it takes no program; that is said.
func TestUnsteerable(t *testing.T) {
	w := start(t, Config{NoProgram: true})
	a := w.lease(1, 0, tcp("127.0.0.1:0")).Address()
	if n := await[Unsteerable](w); n.Address != a || a.Steerable() {
		t.Errorf("%+v", n)
	}
	if r := w.Report(); r.Addresses[0].Balance != "hash" {
		t.Errorf("%+v", r)
	}
}

func TestSetBalance(t *testing.T) {
	w := start(t, Config{})
	w.lease(1, 0, tcp("127.0.0.1:0"))
	w.lease(1, 0, Endpoint{Type: Datagram, Any: true})
	w.steer(1)
	if err := w.SetBalance(handoff.Sticky); err != nil || w.Balance() != handoff.Sticky || w.Report().Addresses[0].Balance != "sticky" {
		t.Error(err, w.Report())
	}
	if err := errors.Join(w.SetBalance(handoff.Sticky), w.SetBalance(handoff.Even)); err != nil || w.Balance() != handoff.Even {
		t.Error(err)
	}
}
