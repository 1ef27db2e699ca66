// Package contracttest is a loop for tests of contracts: a real table of listeners, and
// facts as lines.
package contracttest

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// timeout is for failure only.
const timeout = 20 * time.Second

// Loop is a [contract.Host] that the test's goroutine runs.
type Loop struct {
	T     *testing.T
	Table *listeners.Table
	// Sessions are those whose Handle is called. Queued and Accepted are called for
	// connections at a parked socket, Retry after each steering.
	Sessions map[listeners.Worker]contract.Session
	Queued   func(listeners.Queue)
	Accepted func(listeners.Accepted)
	Retry    func()
	Facts    []string // that no Await has taken
	Stops    bool
	Starts   bool                      // a worker is starting: not complete
	Serves   map[listeners.Worker]bool // the workers that are ready
	Foreign  []string                  // addresses that are not held
	Stored   map[string]int            // what was stored, by "WORKER-NAME": duplicates
	events   chan func()
}

type discard struct{}

func (discard) Store(string, int) error { return nil }
func (discard) Remove(string)           {}

// New returns a loop without workers. It ends with the test.
func New(t *testing.T) *Loop {
	t.Helper()
	table, err := listeners.New(listeners.Config{Store: discard{}, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	l := &Loop{T: t, Table: table, Sessions: map[listeners.Worker]contract.Session{}, Stored: map[string]int{}, events: make(chan func(), 64),
		Queued: func(listeners.Queue) {}, Accepted: func(listeners.Accepted) {}, Retry: func() {}}
	ended := make(chan struct{})
	go func() { // ends with the table
		for table.Wait() == nil {
			select {
			case l.events <- func() {}:
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(ended)
		table.Close()
		for _, fd := range l.Stored {
			unix.Close(fd)
		}
	})
	return l
}

// Worker returns a worker that is this process, or the process pid. Add its session to
// Sessions before serving it.
func (l *Loop) Worker(id listeners.Worker, slot, pid int) contract.Worker {
	l.T.Helper()
	if pid == 0 {
		pid = os.Getpid()
	}
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(func() { p.Close() })
	done := l.T.Context().Done()
	return contract.Worker{ID: id, Slot: slot, PID: pid, Gen: 1, Process: p, Dir: l.T.TempDir(),
		Post: func(what any) {
			select {
			case l.events <- func() { l.Sessions[id].Handle(what) }:
			case <-done:
			}
		},
		Store: func(what string, fd int) error {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			l.events <- func() { l.Stored[fmt.Sprint(id, "-", what)] = dup }
			return err
		},
	}
}

// Post makes the loop call f. Any goroutine may call it.
func (l *Loop) Post(f func()) {
	select {
	case l.events <- f:
	case <-l.T.Context().Done():
	}
}

// Until handles events until ok returns true.
func (l *Loop) Until(what string, ok func() bool) {
	l.T.Helper()
	again := time.NewTicker(time.Millisecond) // it may be true without an event
	defer again.Stop()
	for end := time.Now().Add(timeout); !ok(); {
		select {
		case f := <-l.events:
			f()
		case <-again.C:
		}
		l.tick()
		if time.Now().After(end) { // also if the loop was delayed
			l.T.Fatalf("%s: not after %v; facts %q", what, timeout, l.Facts)
		}
	}
}

func (l *Loop) tick() {
	l.Table.Tick(time.Now())
	for _, n := range l.Table.Notices() {
		switch n := n.(type) {
		case listeners.Queued:
			l.Queued(n.Queue)
		case listeners.Accepted:
			l.Accepted(n)
		}
	}
}

// Await handles events until there is a fact with this prefix, and removes it.
func (l *Loop) Await(fact string) string {
	l.T.Helper()
	got, at := "", -1
	l.Until(fact, func() bool {
		at = slices.IndexFunc(l.Facts, func(f string) bool { return strings.HasPrefix(f, fact) })
		return at >= 0
	})
	got = l.Facts[at]
	l.Facts = slices.Delete(l.Facts, at, at+1)
	return got
}

// Listeners is the table.
func (l *Loop) Listeners() *listeners.Table { return l.Table }

// Steer steers.
func (l *Loop) Steer() {
	if err := l.Table.Steer(); err != nil {
		l.T.Error(err)
	}
	l.Retry()
}

// Complete is true unless the test sets it.
func (l *Loop) Complete() bool { return !l.Starts }

// Stopping is what the test sets.
func (l *Loop) Stopping() bool { return l.Stops }

// Grace is short.
func (l *Loop) Grace() time.Duration { return time.Second }

// Holds is true for every address that is not foreign.
func (l *Loop) Holds(a netip.AddrPort) bool { return !slices.Contains(l.Foreign, a.Addr().String()) }

// Ready is what the test sets.
func (l *Loop) Ready(id listeners.Worker) bool { return l.Serves[id] }

// Report records a fact: "1 Refused 80: …".
func (l *Loop) Report(id listeners.Worker, f contract.Fact) {
	name := strings.TrimPrefix(fmt.Sprintf("%T", f), "contract.")
	line := fmt.Sprint(id, " ", name)
	switch f := f.(type) {
	case contract.Requests:
		line += fmt.Sprint(" ", f.N)
	case contract.Overflow:
		line += " " + f.Err.Error()
	case contract.ProtocolError:
		line += " " + f.Reason
	case contract.Refused:
		line += fmt.Sprint(" ", f.Endpoint.Port, ": ", f.Err)
	case contract.Own:
		line += " " + f.Why
	case contract.Unfiltered:
		line += " " + f.Err.Error()
	case contract.Unplaced:
		line += " " + f.Err.Error()
	case contract.Rescued:
		line += fmt.Sprint(" ", f.N)
	case contract.NotRescued:
		line += " " + f.Err.Error()
	case contract.Lost:
		line += " " + f.Reason
	}
	l.Facts = append(l.Facts, line)
}
