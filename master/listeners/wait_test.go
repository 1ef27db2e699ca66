package listeners

import (
	"slices"
	"testing"
	"time"

	"handoff/handoff"
)

// The worker gives way, and connections wait for the next one.
func TestGiveWay(t *testing.T) {
	w := start(t, Config{})
	old := w.lease(1, 0, tcp("127.0.0.1:0"))
	a := old.Address()
	w.steer(1)
	w.GiveWay([]Worker{1}, w.now)
	w.steer(0)
	w.Quiesce(1, w.now, 0)
	w.pass(time.Second)
	w.pass(time.Second)
	if !slices.Contains(w.seen, Notice(Quiet{1})) {
		t.Errorf("not quiet: %+v", w.seen)
	}
	for range 3 {
		w.connect(a)
	}
	if n := old.socket.Pending(); n != 0 {
		t.Errorf("%d connections go to the one that leaves", n)
	}
	w.ReleaseAll(1, w.now)
	w.GiveWay(nil, w.now)
	w.steer(0) // for another reason
	state := w.State()
	if r := state.Addresses[0]; r.Waits.IsZero() {
		t.Errorf("%+v", r)
	}
	l := w.lease(2, 0, a.Endpoint())
	w.GiveWay(nil, w.now.Add(700*time.Millisecond))
	w.steer(2)
	if n := await[Waited](w); n.Address != a || n.N != 3 || n.For < 700*time.Millisecond || n.For > 5*time.Second {
		t.Errorf("%+v", n)
	}
	w.accept(l, 3)
	if r := w.Report().Addresses[0]; r.Waited < 700*time.Millisecond {
		t.Errorf("%+v", r)
	}
	// Next to others nobody waits.
	w.lease(3, 1, a.Endpoint())
	w.steer(2, 3)
	w.GiveWay([]Worker{2}, w.now)
	w.steer(0, 3)
	none[Waited](w)
	if a.group.LetsWait() {
		t.Error("connections wait, and another worker serves")
	}
}

// Of a socket that all share only the time is known.
func TestGiveWayShared(t *testing.T) {
	w := start(t, Config{Balance: handoff.Shared})
	a := w.lease(1, 0, tcp("127.0.0.1:0")).Address()
	w.steer(1)
	w.GiveWay([]Worker{1}, w.now)
	w.steer(0)
	w.ReleaseAll(1, w.now)
	w.connect(a)
	l := w.lease(2, 0, a.Endpoint())
	w.GiveWay(nil, w.now.Add(time.Second))
	w.steer(2)
	if n := await[Waited](w); n.N != 0 || n.For < time.Second {
		t.Errorf("%+v", n)
	}
	w.accept(l, 1)
}
