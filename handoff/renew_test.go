package handoff

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// goesTo opens connections, which are all to be in the queues of the targets; it returns how
// many each got.
func goesTo(t *testing.T, g *Group, n int, targets ...*Socket) (each []int) {
	t.Helper()
	var before []int
	for _, s := range targets {
		before = append(before, s.Pending())
	}
	for range n {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	sum := 0
	for i, s := range targets {
		each = append(each, s.Pending()-before[i])
		sum += each[i]
	}
	if sum != n {
		t.Errorf("%d of %d are at the targets: %d", sum, n, each)
	}
	return each
}

// keep is a duplicate that a worker has given to somebody else.
func keep(t *testing.T, s *Socket) int {
	t.Helper()
	fd, err := unix.Dup(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// next steers to new sockets.
func next(t *testing.T, g *Group, n int) (sockets []*Socket) {
	t.Helper()
	for slot := range n {
		s, err := g.Take(slot)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	if err := g.Steer(sockets); err != nil {
		t.Fatal(err)
	}
	return sockets
}

// A socket that a worker has had is not given to another: whoever has kept a duplicate of
// it has nothing.
func TestUsedSocketIsReplaced(t *testing.T) {
	w, g, old := optionsGroup(t, "127.0.0.1:0", 3)
	var kept []int
	for _, s := range old {
		kept = append(kept, keep(t, s))
	}
	now := next(t, g, 3)
	// The first is quiet when its worker ends; the others become so afterwards.
	for q := old[0].Quiet(time.Now(), 0); ; {
		if quiet, again := q.Look(time.Now()); quiet {
			break
		} else {
			<-time.After(again)
		}
	}
	old[0].Release()
	if !old[0].Closed() {
		t.Error("a quiet socket is kept")
	}
	old[1].Release()
	old[2].Release()
	unix.SetsockoptInt(kept[2], unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0) // as long as it can
	renewed := 0
	for deadline := time.After(wait); renewed < 3; {
		for _, e := range w.Collect(time.Now()) {
			if _, ok := e.(Renewed); ok {
				renewed++
			}
		}
		select {
		case <-time.After(time.Until(w.Deadline())):
		case <-deadline:
			t.Fatalf("%d of 3 are replaced", renewed)
		}
	}
	for i, fd := range kept {
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on != 0 || !old[i].Closed() {
			t.Errorf("the duplicate of socket %d listens: %d, %v", i, on, err)
		}
	}
	goesTo(t, g, 60, now...)
	again := next(t, g, 3)
	for _, s := range again {
		if slices.Contains(old, s) {
			t.Error("a used socket is given again")
		}
	}
	goesTo(t, g, 60, again...)
}

// One with connections in its queue waits for its next worker, as it is.
func TestQueueIsNotReplaced(t *testing.T) {
	w, g, old := optionsGroup(t, "127.0.0.1:0", 1)
	goesTo(t, g, 3, old[0])
	next(t, g, 1)
	old[0].Release()
	for range 20 {
		w.Collect(time.Now().Add(time.Minute))
	}
	if s, err := g.Take(0); err != nil || s != old[0] || s.Pending() != 3 {
		t.Error(err, s == old[0])
	}
}

// A worker that listens on several sockets gets no more connections than others, and is
// itself the one that stalls if it accepts from none of them.
func TestSharesAreOfSlots(t *testing.T) {
	for _, balance := range []Balance{Even, Sticky} {
		_, g, all := optionsGroup(t, "127.0.0.1:0", 6)
		g.cfg.Balance = balance
		if err := g.SteerEach([][]*Socket{all[:5], all[5:]}); err != nil {
			t.Fatal(err)
		}
		if balance == Sticky { // one client address has one slot
			if each := goesTo(t, g, 60, all...); each[5] != 0 && each[5] != 60 {
				t.Errorf("sticky: %d", each)
			}
			continue
		}
		if each := goesTo(t, g, 200, all...); each[5] < 60 || each[5] > 140 || slices.Contains(each, 0) {
			t.Errorf("the sockets of two slots get %d; want about half for the last", each)
		}
		now := time.Now()
		all[5].accept(200, func() {})
		for i := range 10 {
			g.look(now.Add(time.Duration(i) * lookEvery))
		}
		if stalled := g.Stalled(); len(stalled) > 1 || len(stalled) == 1 && stalled[0] != 0 {
			t.Errorf("stalled are %d", stalled)
		}
	}
}

// A steering program of a holder's lasts until a connection comes where none must.
func TestForeignProgramIsReplaced(t *testing.T) {
	w, g, old := optionsGroup(t, "127.0.0.1:0", 2)
	mine := keep(t, old[0])
	now := next(t, g, 2)
	old[1].Release() // parked
	if err := attach(mine, randomOf([]int{1})); err != nil {
		t.Fatal(err)
	}
	goesTo(t, g, 1, old[1])
	queued := false
	for deadline := time.After(wait); !queued; {
		for _, e := range w.Collect(time.Now()) {
			_, ok := e.(Queued)
			queued = queued || ok
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("a connection at a parked socket is not reported")
		}
	}
	goesTo(t, g, 60, now...)
	// And until a worker ends.
	if err := attach(mine, randomOf([]int{1})); err != nil {
		t.Fatal(err)
	}
	old[0].Release()
	goesTo(t, g, 60, now...)
}

// A holder shuts its socket down while another joins: the record is the kernel's order all
// the same.
func TestJoinDuringShutdown(t *testing.T) {
	w, g, all := optionsGroup(t, "127.0.0.1:0", 3)
	unix.Shutdown(keep(t, all[0]), unix.SHUT_RDWR)
	s, err := g.Take(3) // before Collect has noted that
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Steer([]*Socket{all[1], s}); err != nil {
		t.Fatal(err)
	}
	goesTo(t, g, 60, all[1], s)
	if what, _ := repairs(w); what == "" {
		t.Error("nothing was repaired")
	}
	goesTo(t, g, 60, all[1], s)
}

// The next worker of a socket that stays a target gets no signals of the one before, and not
// what that has set and nobody can read.
func TestSignalsAndHiddenOptionsEndWithAWorker(t *testing.T) {
	w, g, all := optionsGroup(t, "[::1]:0", 2)
	s := all[0]
	unix.FcntlInt(uintptr(s.fd), unix.F_SETOWN, unix.Getpid())
	unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC)
	s.Release() // it has crashed
	flags, _ := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	owner, _ := unix.FcntlInt(uintptr(s.fd), unix.F_GETOWN, 0)
	if what, _ := repairs(w); flags&unix.O_ASYNC != 0 || owner != 0 || flags&unix.O_NONBLOCK == 0 || what != "set O_ASYNC on the listening socket; " {
		t.Errorf("flags %#x, owner %d, said %q", flags, owner, what)
	}
	again, err := g.Take(0)
	if err != nil || again != s {
		t.Fatal(err)
	}
	header := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // padding
	if err := unix.SetsockoptString(s.fd, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, header); err != nil {
		t.Skipf("needs root for an option that costs memory: %v", err)
	}
	s.Release()
	next, err := g.Take(0)
	if _, detached := repairs(w); err != nil || next == s || !s.Closed() || detached != 1 || !g.isTarget(next) {
		t.Errorf("a socket with what nobody can read is given again: %v, %d detached", err, detached)
	}
	goesTo(t, g, 60, next, all[1])
}

// What a worker does to a socket that others still have, too, ends with it.
func TestSharedSocketIsUndone(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		fd, at, err := BindUDP(netip.MustParseAddrPort(addr), false)
		if err != nil {
			t.Skip(err)
		}
		defer unix.Close(fd)
		if changed, err := UndoShared(fd); len(changed) > 0 || err != nil {
			t.Error(addr, changed, err)
		}
		peer, _ := sockaddr(netip.AddrPortFrom(at.Addr(), 9))
		if err := unix.Connect(fd, peer); err != nil {
			t.Fatal(err)
		}
		unix.FcntlInt(uintptr(fd), unix.F_SETOWN, unix.Getpid())
		changed, err := UndoShared(fd)
		if now, berr := Bound(fd); len(changed) != 2 || err != nil || berr != nil || now != at {
			t.Errorf("%s: %q, %v; at %v, want %v", addr, changed, err, now, at)
		}
		if _, err := unix.Getpeername(fd); err == nil {
			t.Error(addr, "it has a peer")
		}
	}
	w, g, all := optionsGroup(t, "127.0.0.1:0", 1)
	g.cfg.Balance = Shared
	if s, err := g.Take(1); err != nil || s != all[0] {
		t.Fatal(err)
	}
	unix.SetsockoptInt(all[0].fd, unix.IPPROTO_IP, ipMinTTL, 255)
	unix.SetsockoptInt(all[0].fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	all[0].Release() // of one of the two
	ttl, _ := unix.GetsockoptInt(all[0].fd, unix.IPPROTO_IP, ipMinTTL)
	keep, _ := unix.GetsockoptInt(all[0].fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	if what, _ := repairs(w); ttl != 0 || keep != 1 || what != "set IP_MINTTL on the listening socket; " {
		t.Errorf("IP_MINTTL %d, SO_KEEPALIVE %d, %q", ttl, keep, what)
	}
}
