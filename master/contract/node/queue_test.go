package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/master/contract"
	"handoff/master/listeners"
)

func (n *worker) query(index int) {
	n.w.T.Helper()
	n.cluster("queryServer", fmt.Sprintf(`,"address":"127.0.0.1","port":0,"addressType":4,"index":%d,"seq":%d`, index, index))
}

// One descriptor is in flight at a time; one that has not arrived is sent again.
func TestOneDescriptorInFlight(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	n.query(0)
	n.query(1)
	first := n.hear()
	unix.Close(first.fd)
	if !n.silent() || !n.session.State().InFlight {
		t.Fatalf("a second descriptor is in flight: %q", n.lines)
	}
	for try := 2; try <= maxTries; try++ {
		n.say(`{"cmd":"NODE_HANDLE_NACK"}`)
		if m := n.hear(); m.Ack != first.Ack || m.fd < 0 {
			t.Fatalf("try %d: %+v", try, m)
		} else {
			unix.Close(m.fd)
		}
	}
	n.say(`{"cmd":"NODE_HANDLE_NACK"}`) // and it is given up
	if m := n.hear(); m.Ack != 1 || m.fd < 0 {
		t.Errorf("after it: %+v", m)
	} else {
		unix.Close(m.fd)
	}
	n.ack()
	if m := n.hear(); m.Cmd != "NODE_HANDLE_ACK" {
		t.Errorf("what was held back: %+v", m)
	}
	n.ack() // of nothing
	n.say(`"ready"`)
	w.Await("1 Ready")
	if n.session.State().InFlight {
		t.Error("something is in flight")
	}
}

// A worker that asks and does not read is reported once, to be killed.
func TestOverflow(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	n.query(0)  // and it is never acknowledged
	go func() { // ends with the test's conn
		line := []byte(strings.Repeat(`{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":1}`+"\n", 100))
		for n.conn.Write(line) == nil {
		}
	}()
	if got := w.Await("1 Overflow"); !strings.Contains(got, "does not read") {
		t.Error(got)
	}
	w.Facts = nil
	for range 3 {
		w.Await("1 Leaving")
	}
	if strings.Contains(strings.Join(w.Facts, ""), "Overflow") {
		t.Error("it is reported again and again")
	}
	n.session.Died()
	n.session.End()
	if w.Facts = nil; len(n.session.queue.held) > 0 {
		t.Error("messages are held for who is gone")
	}
	n.session.Handle(protocolError{"late"})
	if len(w.Facts) > 0 {
		t.Errorf("facts %q", w.Facts)
	}
}

// The next master waits for the receipt that the one before was waiting for.
func TestRestore(t *testing.T) {
	w := start(t)
	ours, theirs := w.pair()
	fd, _ := unix.FcntlInt(uintptr(ours.FD()), unix.F_DUPFD_CLOEXEC, 3)
	ours.Close()
	take := func(what string) int {
		if what == fdstore.Pair {
			return fd
		}
		return -1
	}
	s, err := w.primary.Restore(w.Worker(1, 0, 0), contract.State{InFlight: true}, take)
	if err != nil {
		t.Fatal(err)
	}
	n := w.attend(s, 1, theirs)
	kept := ""
	s.Kept(func(what string, fd int) { kept += what })
	if kept != fdstore.Pair || !s.State().InFlight {
		t.Errorf("kept %q, %+v", kept, s.State())
	}
	n.query(0)
	if !n.silent() {
		t.Errorf("sent behind a descriptor in flight: %q", n.lines)
	}
	n.ack()
	if m := n.hear(); m.Ack != 0 || m.fd < 0 {
		t.Errorf("%+v", m)
	} else {
		unix.Close(m.fd)
	}

	// One whose channel was not kept is told by a signal.
	s, err = w.primary.Restore(w.Worker(2, 1, 0), contract.State{}, func(string) int { return -1 })
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	s.Kept(func(what string, fd int) { t.Errorf("%s of nothing", what) })
	if err := s.Drain(contract.Drain{Signal: 0}); err != nil { // to this process
		t.Error(err)
	}
	if err := s.Terminate(); err != nil {
		t.Error(err)
	}
	s.Died()
	s.End()
}

// Connections in the queue of a dead worker's socket are handed to others, until one
// has them.
func TestRescue(t *testing.T) {
	w := start(t)
	dying, second, third := w.worker(1, 0), w.worker(2, 1), w.worker(3, 2)
	m := dying.listen(0, 0)
	w.Table.SetTargets([]listeners.Worker{1, 0, 0})
	w.Steer()
	port := portOf(m.fd)
	unix.Close(m.fd)
	// Two for it, one of them queued on.
	for _, n := range []*worker{second, third} {
		q := n.listen(0, 0)
		unix.Close(q.fd)
	}
	const clients = 3
	for range clients {
		dial(t, port)
	}
	dying.session.Died()
	w.Table.ReleaseAll(1, time.Now())
	w.Table.SetTargets([]listeners.Worker{0, 2, 3})
	w.Steer()
	if got := w.Await("0 Rescued"); got != fmt.Sprint("0 Rescued ", clients) {
		t.Error(got)
	}
	// Whoever gets one refuses it, and the other takes it.
	left := clients
	answers := map[*worker]int{}
	w.Until("all are taken", func() bool {
		for _, n := range []*worker{second, third} {
			if len(n.session.handed) == 0 {
				continue
			}
			c := n.hear()
			if c.Act != "newconn" || c.Key != m.Key || c.fd < 0 || c.Type != "net.Native" {
				t.Fatalf("%+v", c)
			}
			unix.Close(c.fd)
			n.ack()
			accepts := answers[n] > 0 || n == third
			answers[n]++
			handed := len(n.session.handed)
			n.cluster("", fmt.Sprintf(`,"ack":%d,"accepted":%v`, c.Seq, accepts))
			w.Until("answered", func() bool { return len(n.session.handed) != handed })
			if accepts {
				left--
			}
		}
		return left == 0
	})
	if answers[second] == 0 || answers[third] == 0 {
		t.Errorf("answers: second %d, third %d", answers[second], answers[third])
	}
	n := second
	n.cluster("", `,"ack":9999,"accepted":true`) // of nothing
	n.say(`"ready"`)
	w.Await("2 Ready")
}

// A connection waits for a worker, and is lost when none comes.
func TestNobodyToRescue(t *testing.T) {
	w := start(t)
	n := w.worker(1, 0)
	w.Table.SetTargets([]listeners.Worker{1})
	m := n.listen(0, 0)
	unix.Close(m.fd)
	p, a := w.primary, w.Table.ByKey(m.Key)
	socket := func() int {
		fd, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return fd
	}
	until := time.Now().Add(time.Second)
	p.pass(pending{address: a, fd: socket(), until: until}, 0)
	n.hear()
	n.session.End() // and it goes back
	if got := p.Deadline(); len(p.waiting) != 1 || !got.Equal(until) {
		t.Fatalf("%d wait until %v, want %v", len(p.waiting), got, until)
	}
	p.Tick(until.Add(-1))
	if len(w.Facts) > 0 {
		t.Errorf("facts %q", w.Facts)
	}
	p.Tick(until)
	if w.Await("0 Lost no worker asked"); len(p.waiting) > 0 || !p.Deadline().IsZero() {
		t.Error("it waits on")
	}
	p.pass(pending{address: a, fd: socket(), tries: maxRefusals + 1}, 0)
	w.Await("0 Lost no worker accepted it")
	p.pass(pending{address: a, fd: socket()}, 0)
	p.GiveUp()
	w.Await("0 Lost the service is stopping")
	p.Accepted(listeners.Accepted{Err: unix.EMFILE})
	w.Await("0 NotRescued too many open files")
}

func TestPlan(t *testing.T) {
	w := start(t)
	plan := w.primary.Plan()
	if got := fmt.Sprint(plan.Env(7, 3)); !plan.Channel || plan.Filter || plan.Survives || got != "[NODE_CHANNEL_FD=3 NODE_CHANNEL_SERIALIZATION_MODE=json NODE_UNIQUE_ID=7]" {
		t.Errorf("%+v, %s", plan, got)
	}
}
