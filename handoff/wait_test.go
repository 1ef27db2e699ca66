package handoff

import (
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Connections wait where nobody accepts, also after another owner has taken over, and the
// workers that come get them. The group does not grow with each time.
func TestConnectionsWait(t *testing.T) {
	w, g, _ := optionsGroup(t, "127.0.0.1:0", 1)
	defer w.Close()
	old := next(t, g, 1)[0]
	if err := g.LetWait(2); err != nil || !g.LetsWait() {
		t.Fatal(err)
	}
	waiting := g.targets
	if len(waiting) != 2 || waiting[0] == old || waiting[1] == old || waiting[0].Held() || waiting[1].Held() {
		t.Fatalf("%+v", waiting)
	}
	goesTo(t, g, 20, waiting...)
	if err := g.LetWait(2); err != nil || g.targets[0] != waiting[0] {
		t.Errorf("%v, other sockets the second time", err)
	}
	old.Release()

	b, _ := json.Marshal(g.State())
	var state State
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	heirs, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer heirs.Close()
	h, err := heirs.Restore(state, func(inode uint64) int {
		for _, s := range g.Sockets() {
			if s.Inode() == inode {
				return keep(t, s)
			}
		}
		return -1
	})
	if err != nil || !h.LetsWait() {
		t.Fatalf("%v, waiting %v", err, h.LetsWait())
	}
	n := 0
	for slot := range 2 {
		s, err := h.Take(slot)
		if err != nil || s.Inode() != waiting[slot].Inode() {
			t.Fatalf("slot %d gets another socket: %v", slot, err)
		}
		n += s.Pending()
	}
	if n != 20 || h.Waited() != 20 {
		t.Errorf("%d wait, %d are said to", n, h.Waited())
	}
	if err := h.Steer(h.targets); err != nil || h.LetsWait() || h.Waited() != 0 {
		t.Errorf("%v: they are said to wait on", err)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	w, g, _ := optionsGroup(t, "127.0.0.1:0", 1)
	defer w.Close()
	for range 20 {
		s := next(t, g, 1)[0]
		if err := g.LetWait(1); err != nil {
			t.Fatal(err)
		}
		for q := s.Quiet(time.Now(), 0); ; {
			quiet, again := q.Look(time.Now())
			if quiet {
				break
			}
			<-time.After(again)
		}
		s.Release()
	}
	if n := len(g.Sockets()); n > 4 {
		t.Errorf("%d sockets after 20 workers", n)
	}
}

// Where no other socket can be bound connections go where they went.
func TestNoSocketToWaitIn(t *testing.T) {
	w, g, _ := optionsGroup(t, "127.0.0.1:0", 1)
	defer w.Close()
	s := next(t, g, 1)[0]
	var was unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &was)
	for _, o := range g.Sockets() {
		o.used = true
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max})
	err := g.LetWait(1)
	again := g.LetWait(1)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if err != nil || again != nil || g.LetsWait() || !g.isTarget(s) {
		t.Errorf("%v, %v", err, again)
	}
	if len(w.events) != 1 {
		t.Errorf("reported %v", w.events)
	}
	if err := g.Steer([]*Socket{s}); err != nil {
		t.Fatal(err)
	}
	if err := g.LetWait(1); err != nil || !g.LetsWait() {
		t.Errorf("%v: later it can", err)
	}
}

// An owner has decided that connections wait, and dies before the kernel knows: the next one
// tells the kernel, so that none come to the worker that is to become quiet.
func TestWaitIsAppliedByTheNextOwner(t *testing.T) {
	w, g, _ := optionsGroup(t, "127.0.0.1:0", 1)
	defer w.Close()
	next(t, g, 1)
	before := g.program
	if err := g.LetWait(1); err != nil {
		t.Fatal(err)
	}
	state := g.State()
	waits := g.targets[0].Inode()
	if err := attach(g.Sockets()[0].fd, before); err != nil { // as it was
		t.Fatal(err)
	}
	heirs, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer heirs.Close()
	h, err := heirs.Restore(state, func(inode uint64) int {
		for _, s := range g.Sockets() {
			if s.Inode() == inode {
				return keep(t, s)
			}
		}
		return -1
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LetWait(1); err != nil || h.targets[0].Inode() != waits {
		t.Fatal(err)
	}
	goesTo(t, h, 20, h.targets[0])
}
