package descendants

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// What serves a connection has the drain timeout, also in a session of its own; the next
// master knows it.
func TestServesInADrain(t *testing.T) {
	w := start(t, "stays", "s", "serves")
	w.ends()
	now := time.Now()
	w.End(1, End{By: now.Add(time.Minute), Serving: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), []string{"1 finish"})
	s := w.State()
	w.next()
	w.Restore(s, os.Getpid(), instance, now)
	if f := w.Finishing(); w.Idle() || !w.alive(w.all[0]) || len(f) != 1 || f[0].Processes != 1 || !f[0].Until.Equal(now.Add(time.Minute)) {
		t.Fatalf("it has not got its time: %+v", f)
	}
	w.Tick(now.Add(time.Minute))
	w.want(w.said(), []string{"SIGTERM 1: drain timeout"})
	w.awaitIdle()
}

// Of what a crashed worker has left, what serves has its time, with what it has started;
// the rest has not.
func TestServesAfterACrash(t *testing.T) {
	w := start(t, "stays", "s", "stays", "s", "serves")
	w.ends()
	now := time.Now()
	w.End(1, End{Serving: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), []string{"1 finish", "SIGTERM 1: their worker has exited"})
	for late := time.After(testTimeout); len(w.trees) > 1; {
		select {
		case <-w.died:
			w.Refresh()
		case <-late:
			t.Fatalf("%+v", w.State())
		}
	}
	if w.Idle() || !w.alive(w.all[0]) {
		t.Fatal("it has not got its time")
	}
	w.Hurry(now)
	w.want(w.said(), []string{"SIGKILL 1: the service stops immediately"})
	w.awaitIdle()

	w = start(t, "stays", "s", "serves") // one that was overdue
	w.ends()
	w.End(1, End{Signal: unix.SIGTERM, Grace: time.Second}, now)
	w.want(w.said(), []string{"SIGTERM 1: their worker has exited"})
	w.awaitIdle()
}

// Who serves: whoever has a connection of the service, but not the server itself behind
// another program, and not by connections of its own to elsewhere.
func TestWhoServes(t *testing.T) {
	first, _ := linux.EphemeralPorts()
	self := linux.Image(os.Getpid())
	for _, c := range []struct {
		name  string
		image string // of the worker
		h     Holding
		want  bool
	}{
		{"nothing", self, Holding{}, false},
		{"to a database", self, Holding{Connections: []Connection{{Port: first}}}, false},
		{"of the service", self, Holding{Connections: []Connection{{Port: first}, {Port: 8080}}}, true},
		{"of a listener that is not held", self, Holding{Connections: []Connection{{Accepted: true}}}, true},
		{"nobody can say", self, Holding{Hidden: true}, true},
		{"a fork that has the listener too", self, Holding{Connections: []Connection{{Port: 8080}}, Listening: []uint16{8080}}, true},
		{"the server, started by a shell", "/bin/other", Holding{Connections: []Connection{{Port: 8080}}, Listening: []uint16{8080}}, false},
		{"an FTP session of inetd's", "/bin/other", Holding{Connections: []Connection{{Port: 8080}}, Listening: []uint16{first + 1}}, true},
	} {
		tr := &tree{image: c.image, ports: []uint16{8080}}
		if got := tr.serves(&member{Process: Process{PID: os.Getpid()}}, c.h); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A port that a crashed worker's replacement needs is not kept from it.
func TestServesWithAPortOfItsOwn(t *testing.T) {
	w := start(t, "stays", "s", "serves")
	w.ends()
	w.tree(1).learn([]Holding{{PID: w.all[0].PID, Start: w.all[0].Start, Connections: []Connection{{Accepted: true}}, Listening: []uint16{81}}})
	now := time.Now()
	w.End(1, End{Serving: now.Add(time.Minute), Grace: time.Second}, now)
	w.want(w.said(), []string{"SIGTERM 1: their worker has exited"})
	w.awaitIdle()
}

// What there is no time for may serve.
func TestHoldingsInNoTime(t *testing.T) {
	w := start(t, "stays", "s", "heeds")
	w.Look(1)
	w.cmd.Process.Kill()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, w.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	orphans := w.Orphans(testTimeout)()
	find := func(timeout time.Duration) Holding {
		var pids []int
		for _, o := range orphans {
			pids = append(pids, o.Stat.PID)
		}
		all := HoldingsOf(pids, timeout)
		i := slices.IndexFunc(all, func(h Holding) bool { return h.PID == w.all[0].PID })
		if i < 0 {
			t.Fatalf("%+v", all)
		}
		return all[i]
	}
	if h := find(testTimeout); h.Hidden || len(h.Connections) > 0 {
		t.Errorf("%+v", h)
	}
	if h := find(-1); !h.Hidden {
		t.Errorf("%+v", h)
	}
	w.cmd.Wait()
}

// What still has the listening socket, and accepts from it, is ended: the next master
// knows what it had.
func TestAcceptsAfterItsWorkerHasEnded(t *testing.T) {
	w := start(t, "stays", "s", "serves")
	w.ends()
	h := Holding{PID: w.all[0].PID, Start: w.all[0].Start, Connections: []Connection{{Inode: 7, Accepted: true}}, ListensUnix: true}
	w.tree(1).learn([]Holding{h})
	now := time.Now()
	w.End(1, End{By: now.Add(time.Minute), Serving: now.Add(time.Minute), Signal: unix.SIGTERM, Grace: time.Second, Drained: true}, now)
	if n := w.Notices(); len(n) != 1 || n[0].Listen != 1 || !n[0].Drained {
		t.Errorf("%+v", n)
	}
	s := w.State()
	w.next()
	w.Restore(s, os.Getpid(), instance, now)
	if w.Due(now) != nil {
		t.Error("it is looked at too early")
	}
	look := w.Due(w.Tracker.Deadline())
	if look == nil {
		t.Fatal("it is not looked at")
	}
	if all := look(); len(all) != 1 || all[0].PID != w.all[0].PID || len(all[0].Connections) != 1 {
		t.Errorf("%+v", all)
	}
	w.Looked([]Holding{h}, now)
	if w.want(w.said(), nil); !w.Tracker.Deadline().Equal(now.Add(lookInterval)) {
		t.Error("it is not looked at again")
	}
	h.Connections = append(h.Connections, Connection{Inode: 8, Accepted: true})
	w.Looked([]Holding{h}, now)
	w.want(w.said(), []string{"SIGTERM 1: new connections came to it after its worker has ended"})
	w.awaitIdle()
}
