package listeners

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// two workers have a share of an address, and are steered to.
func two(w *world) (a *Address, one, other *Lease) {
	one = w.lease(1, 0, tcp("127.0.0.1:0"))
	other = w.lease(2, 1, one.Address().Endpoint())
	w.steer(1, 2)
	return one.Address(), one, other
}

func TestViolations(t *testing.T) {
	w := start(t, Config{})
	a, one, _ := two(w)
	unix.Shutdown(one.FD(), unix.SHUT_RDWR)
	if n := await[Violation](w); n.Address != a || n.Worker != 1 || !strings.Contains(n.What, "shutdown(2)") {
		t.Errorf("%+v", n)
	}
	w.connect(a)
	unix.SetNonblock(one.FD(), false)
	w.Listening(1, tcp(a.Name())) // it has called listen(2): the socket is looked at
	if n := await[Violation](w); n.Worker != 1 || !strings.Contains(n.What, "O_NONBLOCK") {
		t.Errorf("%+v", n)
	}
	// Where the flags are its own business nothing is wrong.
	one.OwnFlags()
	unix.SetNonblock(one.FD(), false)
	w.Listening(1, tcp(a.Name()))
	none[Violation](w)
	// Of a parked socket it is not known who.
	w.ReleaseAll(1, w.now)
	unix.Shutdown(one.FD(), unix.SHUT_RDWR)
	if n := await[Violation](w); n.Worker != 0 {
		t.Errorf("%+v", n)
	}
}

// A socket that cannot listen again is closed, and its worker has none any more.
func TestDetached(t *testing.T) {
	w := start(t, Config{})
	a, one, other := two(w)
	inode := one.Inode()
	unix.Shutdown(one.FD(), unix.SHUT_RDWR)
	// The rogue ties it to a group of its own (see handoff's attach).
	ret := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(one.FD(), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &ret}); err != nil {
		t.Skip(err)
	}
	if n := await[Detached](w); n.Address != a || n.Worker != 1 {
		t.Errorf("%+v", n)
	}
	if _, kept := w.store[SocketName(inode)]; kept || a.LeaseOf(1) != nil {
		t.Error("it is still there")
	}
	w.steer(1, 2)
	for range 3 {
		w.connect(a)
	}
	w.accept(other, 3)
}

func TestQueueWithoutAWorker(t *testing.T) {
	w := start(t, Config{})
	a, one, other := two(w)
	w.steer(1)
	first := w.connect(a)
	w.ReleaseAll(1, w.now)
	w.steer(0, 2) // the other one serves alone: what is queued waits for nobody
	n := await[Queued](w)
	if q := n.Queue; q.Address() != a || q.Slot() != 0 || q.Len() != 1 {
		t.Errorf("%+v", q)
	}
	if queues := a.Queues(); len(queues) != 1 || queues[0].Len() != 1 {
		t.Errorf("%+v", queues)
	}
	n.Queue.Accept(10)
	got := await[Accepted](w)
	if len(got.FDs) != 1 || got.Err != nil || got.Queue.Address() != a {
		t.Fatalf("%+v", got)
	}
	sa, _ := unix.Getpeername(got.FDs[0])
	if sa.(*unix.SockaddrInet4).Port != first.LocalAddr().(*net.TCPAddr).Port {
		t.Errorf("%+v", sa)
	}
	unix.Close(got.FDs[0])
	if len(a.Queues()) != 0 {
		t.Error("still queued")
	}
	w.connect(a)
	w.accept(other, 1)
	_ = one
	// What comes for an address that is closed meanwhile is closed.
	w.handle([]handoff.Event{handoff.Accepted{FDs: []int{dup(t)}}})
	none[Accepted](w)
}

func dup(t *testing.T) int {
	fd, err := unix.Open(os.DevNull, unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %d is open", fd)
		}
	})
	return fd
}

func TestQuiet(t *testing.T) {
	w := start(t, Config{})
	a, one, _ := two(w)
	w.steer(1)
	w.connect(a)
	w.Quiesce(1, w.now, 100*time.Millisecond)
	w.pass(time.Second)
	none[Quiet](w) // it is still steered to
	w.steer(0, 2)
	w.pass(time.Second)
	none[Quiet](w) // a connection is queued
	w.accept(one, 1)
	began := w.now
	for range 100 {
		if len(w.seen) > 0 {
			break
		}
		if next := w.Table.Deadline(); next.After(w.now) {
			w.pass(next.Sub(w.now))
		} else {
			w.pass(time.Millisecond)
		}
	}
	if n, ok := w.seen[0].(Quiet); !ok || n.Worker != 1 {
		t.Errorf("%+v", w.seen)
	}
	w.seen = nil
	t.Log("quiet after", w.now.Sub(began))
	// One without a socket has its grace alone; one that is forgotten is never quiet.
	w.Quiesce(7, w.now, 50*time.Millisecond)
	w.Quiesce(8, w.now, 50*time.Millisecond)
	w.ForgetQuiet(8)
	w.pass(40 * time.Millisecond)
	if len(w.seen) > 0 || !w.Table.Deadline().Equal(w.now.Add(10*time.Millisecond)) {
		t.Errorf("%+v, deadline in %v", w.seen, w.Table.Deadline().Sub(w.now))
	}
	w.pass(10 * time.Millisecond)
	if len(w.seen) != 1 || w.seen[0] != (Quiet{7}) {
		t.Errorf("%+v", w.seen)
	}
}

// One worker accepts nothing, while the other does.
func TestStalls(t *testing.T) {
	w := start(t, Config{StallTimeout: 3 * time.Second})
	a, one, other := two(w)
	for w.Report().Queues[1] == 0 { // random
		w.connect(a)
	}
	w.accept(other, w.Report().Queues[2])
	for range 1000 {
		if w.Stalls(1) {
			break
		}
		w.pass(6 * time.Millisecond)
	}
	since := w.now
	if !w.Stalls(1) || w.Stalls(2) {
		t.Fatal("not found")
	}
	// Nothing goes there now.
	queue := w.Report().Queues[1]
	for range 10 {
		w.connect(a)
	}
	w.accept(other, 10)
	if n := w.Report().Queues[1]; n != queue {
		t.Errorf("%d more connections for one that stalls", n-queue)
	}
	none[Stalled](w)
	w.pass(stallReported)
	if len(w.seen) != 1 || w.seen[0] != (Stalled{1}) {
		t.Errorf("%+v", w.seen)
	}
	w.seen = nil
	w.pass(2 * time.Second)
	if len(w.seen) != 1 || w.seen[0] != (StallTimeout{1, 3 * time.Second}) {
		t.Errorf("%+v", w.seen)
	}
	w.seen = nil
	w.SetStallTimeout(0)
	w.pass(time.Hour)
	none[StallTimeout](w)
	w.accept(one, queue)
	w.pass(time.Second) // looks have become rare
	w.pass(0)
	if n, ok := w.seen[0].(Recovered); !ok || n.Worker != 1 || n.After < time.Hour {
		t.Errorf("%+v", w.seen)
	}
	if w.Stalls(1) {
		t.Error("still", w.now.Sub(since))
	}
}

// A program binds what it may have bound before.
func TestRetake(t *testing.T) {
	w := start(t, Config{})
	a := w.lease(9, 1, tcp("127.0.0.1:0")).Address()
	open := map[uint64]bool{}
	retake := func(reuse bool) (*Lease, error) {
		l, err := a.Retake(1, 0, func(inode uint64) bool { return open[inode] }, reuse)
		if err == nil {
			open[l.Inode()] = true
		}
		return l, err
	}
	one, err := retake(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := retake(false); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second one: %v", err)
	}
	two, err := retake(true)
	if err != nil || two.Inode() == one.Inode() {
		t.Errorf("with SO_REUSEPORT: %v", err)
	}
	one.Listening()
	two.Listening()
	delete(open, one.Inode())
	if again, err := retake(false); err != nil || again != one || again.listening {
		t.Errorf("one that it has closed: %v, %+v", err, again)
	}
	one.Listening()
	// Both of its sockets are steered to.
	w.steer(1)
	for range 64 {
		w.connect(a)
	}
	if one.socket.Pending() == 0 || two.socket.Pending() == 0 {
		t.Errorf("%d and %d", one.socket.Pending(), two.socket.Pending())
	}
}

func TestAdopt(t *testing.T) {
	w := start(t, Config{})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	e := tcp("127.0.0.1:0")
	a, err := w.Adopt(e, fd)
	if err != nil || w.Find(e) != a {
		t.Fatal(err)
	}
	l, _ := a.Take(1, 0)
	if l.FD() != fd {
		t.Error("it is another socket")
	}
	l.Listening()
	w.steer(1)
	w.connect(a)
	w.accept(l, 1)
	if _, err := w.Adopt(e, -1); err == nil {
		t.Error("adopted nothing")
	}
}

// A preopened address has the type that it says.
func TestPreopenedDatagram(t *testing.T) {
	w := start(t, Config{})
	at := Listen{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Type: Datagram, UID: -1, GID: -1}
	if _, err := w.Preopen(at); err != nil {
		t.Fatal(err)
	}
	leases, _, err := w.TakePreopened(1, 0, 1)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	if typ, err := unix.GetsockoptInt(leases[0].FD(), unix.SOL_SOCKET, unix.SO_TYPE); typ != unix.SOCK_DGRAM {
		t.Error(typ, err)
	}
}

func TestPreopened(t *testing.T) {
	dir := t.TempDir()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	w := start(t, Config{})
	for _, l := range []Listen{
		{Name: "web", Addr: any, UID: -1, GID: -1},
		{Path: dir + "/s", Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()},
	} {
		if _, err := w.Preopen(l); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir + "/s"); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	blocking := func(fd int) bool {
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return flags&unix.O_NONBLOCK == 0
	}
	one, names, err := w.TakePreopened(1, 0, 1)
	if err != nil || len(one) != 2 || strings.Join(names, ":") != "web:" {
		t.Fatal(one, names, err)
	}
	if !blocking(one[0].FD()) || !blocking(one[1].FD()) || !one[0].Address().Accepts(1) {
		t.Error("not as systemd's are")
	}
	unix.SetNonblock(one[1].FD(), true) // its event loop does so
	two, _, err := w.TakePreopened(2, 1, 1)
	if err != nil || !blocking(two[0].FD()) || blocking(two[1].FD()) {
		t.Error("the socket of both is blocking", err)
	}
	// A program that makes one of its own instead gets the one that it was given.
	if l, err := one[0].Address().Retake(1, 0, func(uint64) bool { return true }, false); err != nil || l != one[0] || l.listening {
		t.Error(l, err)
	}
	w.ReleaseAll(1, w.now)
	w.ReleaseAll(2, w.now)
	w.pass(time.Hour)
	none[Unused](w) // kept to the end
	if !w.Table.Deadline().IsZero() || w.CloseUnused(one[0].Address()) {
		t.Error("given up")
	}

	for _, c := range []struct {
		l    Listen
		want string
	}{
		{Listen{Addr: any}, "cannot listen on 127.0.0.1:0 twice"},
		{Listen{Path: dir + "/s"}, "cannot listen on " + dir + "/s twice"},
		{Listen{Addr: netip.MustParseAddrPort(one[0].Address().Name())}, "address already in use: listeners.test"},
		{Listen{Path: dir + "/none/s"}, "no such file or directory"},
		{Listen{Path: dir + "/t", UID: 1 << 30, GID: 1 << 30}, ""},
	} {
		if _, err := w.Preopen(c.l); err == nil && (c.want != "" || os.Getuid() != 0) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.l, err, c.want)
		}
	}
}

// The next master goes on with what there is: who is steered to, who has what, which
// connections wait.
func TestStateAndRestore(t *testing.T) {
	dir := t.TempDir()
	before := start(t, Config{})
	listen := []Listen{{Name: "web", Addr: netip.MustParseAddrPort("127.0.0.1:0"), UID: -1, GID: -1}, {Name: "gone", Path: dir + "/gone", UID: -1, GID: -1}}
	for _, l := range listen {
		if _, err := before.Preopen(l); err != nil {
			t.Fatal(err)
		}
	}
	given, _, err := before.TakePreopened(1, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	a, one, other := two(before)
	path := Endpoint{Family: Unix, Addr: dir + "/s"}
	before.lease(1, 0, path)
	lost := before.lease(2, 1, Endpoint{Type: Datagram, Addr: "127.0.0.1"})
	before.steer(0, 2)
	before.connect(a)
	b, err := json.Marshal(before.State())
	if err != nil {
		t.Fatal(err)
	}
	var state State
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	kept := store{}
	before.Kept(func(name string, fd int) { kept.Store(name, fd) })
	if len(kept) != len(before.store) {
		t.Errorf("%v, and the store has %v", kept, before.store)
	}
	kept.Remove("x" + lost.Address().Key())
	kept.Remove("x" + given[1].Address().Key())
	// As if it were killed: nothing is removed.
	os.Link(dir+"/s", dir+"/link")
	os.Remove(dir + "/gone")

	after := start(t, Config{})
	for name, fd := range kept {
		after.store.Store(name, fd)
	}
	got := after.Restore(state, kept.take)
	if len(got) != 2 || got[0].Name != dir+"/gone" || !strings.HasPrefix(got[1].Name, "udp ") || !strings.Contains(got[1].Error(), "was not stored") {
		t.Errorf("lost: %v", got)
	}
	if more := after.RestorePreopened(state.Preopened, listen); len(more) != 0 {
		t.Errorf("lost: %v", more)
	}
	if _, err := os.Stat(dir + "/gone"); err != nil {
		t.Error("not opened anew:", err)
	}
	if len(kept) != 0 {
		t.Errorf("nobody's: %v", kept)
	}
	again := after.ByKey(a.Key())
	if again == nil || again.Name() != a.Name() || again.Endpoint() != a.Endpoint() || !after.IsTarget(2) {
		t.Fatalf("%+v", again)
	}
	if after.Report().Queues[2] != 1 {
		t.Error("the connection that waits is not there")
	}
	theirs := again.LeaseOf(2)
	if theirs.Inode() != other.Inode() || !again.Accepts(2) || again.LeaseOf(1).Inode() != one.Inode() {
		t.Error("others have it")
	}
	after.accept(theirs, 1)
	after.steer(1, 0)
	after.connect(again)
	after.accept(again.LeaseOf(1), 1)
	after.steer(0, 2)
	after.connect(again)
	after.accept(theirs, 1)
	if l := after.Find(path).LeaseOf(1); l == nil || l.FD() < 3 || !l.listening {
		t.Errorf("%+v", l)
	}
	if fresh, _ := after.Open(tcp("127.0.0.1:0").with(5)); after.ByKey(fresh.Key()) != fresh || fresh.Key() == a.Key() {
		t.Error("a key is used twice")
	}
	if l, names, err := after.TakePreopened(3, 0, 1); err != nil || len(l) != 2 || names[0] != "web" {
		t.Error(l, names, err)
	}
	c, err := net.Dial("unix", dir+"/link")
	if err == nil {
		c.Close()
	}
}

func (e Endpoint) with(index int) Endpoint { e.Index = index; return e }

func TestRestoreErrors(t *testing.T) {
	w := start(t, Config{})
	lost := w.Restore(State{Addresses: []AddressState{{Key: "1", Name: "a", Kind: 9}, {Key: "2", Name: "b"}, {Key: "3", Name: "c", Kind: -1}}}, func(string) int { return -1 })
	if len(lost) != 3 || !strings.Contains(lost[0].Error(), "kind 9") || !errors.Is(lost[1], unix.ENOENT) {
		t.Errorf("%v", lost)
	}
	// One of --listen that is lost, and cannot be opened: workers cannot start.
	if lost := w.RestorePreopened([]string{"1"}, []Listen{{Path: "/none/s", UID: -1, GID: -1}}); len(lost) != 1 {
		t.Errorf("%v", lost)
	}
	if _, _, err := w.TakePreopened(1, 0, 1); err == nil || !strings.Contains(err.Error(), "/none/s was lost") {
		t.Error(err)
	}
	if s := w.State(); len(s.Preopened) != 1 || s.Preopened[0] != "" {
		t.Errorf("%+v", s)
	}
}

// The record's words and numbers are for ever.
func TestStateOnTheWire(t *testing.T) {
	const was = `{"addresses":[{"key":"3","kind":2,"addr":"/run/s","port":-1,"name":"/run/s","bound":"","shared":{"kind":"net.Native","path":"/run/s","dev":1,"ino":2},"data":{"a":1},"holds":[{"worker":4,"slot":1,"inode":9,"listening":true,"given":true}],"given":true,"unheld":"0001-01-01T00:00:00Z"},` +
		`{"key":"4","kind":1,"addr":"::","any":true,"port":0,"v6only":true,"index":1,"name":"[::]:80","bound":"[::]:80","steerable":true,"balance":"sticky","sockets":[{"inode":9,"slot":1,"own":true}],"unheld":"0001-01-01T00:00:00Z"}],"last_key":4,"seats":[4,0],"given":["3"]}`
	var s State
	if err := json.Unmarshal([]byte(was), &s); err != nil {
		t.Fatal(err)
	}
	if is, _ := json.Marshal(s); string(is) != was {
		t.Errorf("%s\nwant %s", is, was)
	}
	for i, k := range kinds[:steeredUDP] { // the others are the group's to tell
		var r AddressState
		e := Endpoint{Family: k.family, Type: k.typ, Addr: "x", Any: true, Port: 1, V6Only: true, Index: 2}
		r.SetEndpoint(e)
		if got, err := r.endpoint(); r.Kind != i || got != e || err != nil {
			t.Errorf("%d: %+v, %v", r.Kind, got, err)
		}
	}
}
