package bind

import (
	"slices"
	"time"

	"handoff/internal/bindintercept"
	"handoff/internal/keeper/fdstore"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// maxLooks limits how many descriptors and processes of a worker are inspected, so that a
// worker cannot keep its master busy.
const maxLooks = 4096

// maxOthers is the same for processes that have left the worker's tree, and for all others.
const maxOthers = 1 << 14

// called answers a worker whose call was intercepted, or has it wait.
func (s *Session) called(e called) {
	r := e.call.About()
	if r.TGID != s.PID {
		s.contract.host.Report(s.ID, contract.Caller{PID: r.TGID})
	}
	for _, f := range r.Failed {
		s.promises = slices.DeleteFunc(s.promises, func(p tcpPromise) bool { return p.inode == f.Inode && p.at == f.Addr })
	}
	if r.Op != bindintercept.Bind {
		s.names(e)
		return
	}
	if s.dead || s.contract.host.Stopping() {
		e.call.Continue()
		return
	}
	switch r.Kind {
	case bindintercept.TCP:
		s.tcp(e)
	case bindintercept.Unix:
		s.path(e)
	case bindintercept.UDP:
		s.datagram(e)
	}
}

func (s *Session) table() *listeners.Table { return s.contract.host.Listeners() }

// waiting is a call that waits for the fate of what another worker has promised: it is
// dispatched again whenever that may be known. One worker has no more than it has pending
// calls; a master that dies leaves them to the next one, as it does those.
type waiting struct {
	session *Session
	called  called
}

const (
	maxWait   = 5 * time.Second // of one call; then it is dispatched as expired
	lookEvery = 20 * time.Millisecond
	// closingLooks is how often a call is looked at that waits for the keeper to close its
	// duplicates of a socket that the worker has closed.
	closingLooks = 5
)

// wait has a call wait. Its dispatch begins anew later.
func (s *Session) wait(e called) { s.contract.waiting = append(s.contract.waiting, waiting{s, e}) }

// review dispatches the waiting calls again.
func (c *Contract) review(now time.Time) {
	c.look = now.Add(lookEvery)
	list := c.waiting
	c.waiting = nil
	for _, w := range list {
		w.called.expired = now.Sub(w.called.at) >= maxWait
		w.session.called(w.called)
	}
}

// forget lets the waiting calls of a session that has ended go their way.
func (c *Contract) forget(s *Session) {
	c.waiting = slices.DeleteFunc(c.waiting, func(w waiting) bool {
		if w.session == s {
			w.called.call.Continue()
		}
		return w.session == s
	})
}

// Deadline is when Tick has a waiting call to look at; zero: there is none.
func (c *Contract) Deadline() time.Time {
	if len(c.waiting) == 0 {
		return time.Time{}
	}
	return c.look
}

// Tick dispatches the waiting calls again when it is time.
func (c *Contract) Tick(now time.Time) {
	if at := c.Deadline(); !at.IsZero() && !now.Before(at) {
		c.review(now)
	}
}

// GiveUp: the service stops. What waits goes its way.
func (c *Contract) GiveUp() {
	for _, w := range c.waiting {
		w.called.call.Continue()
	}
	c.waiting = nil
}

// noteBound records which process of the worker has bound a held address. If it is only
// one, and not the leader, the leader is a launcher (npm, a shell), which may not forward
// a signal: then that process gets the drain signal.
func (s *Session) noteBound(c call) {
	pid := c.About().TGID
	switch {
	case s.bound != nil && s.bound.PID() == pid, s.several:
		return
	case s.bound != nil || pid == s.PID:
		s.several = true // the leader, or several: the leader is signalled
		s.dropBound()
		return
	}
	if p, err := c.Caller(); err == nil {
		s.bound = p
		s.Store(fdstore.Bound, p.FD())
	}
}

// boundFor records that a process listens on a socket that another one has bound, which is above
// it, as a rule (varnishd's manager): the leader is signalled, not the one that listens.
func (s *Session) boundFor(binder int) {
	if s.bound == nil || s.bound.PID() != binder {
		s.several = true
		s.dropBound()
	}
}

func (s *Session) refuse(c call, e listeners.Endpoint, err error) {
	if s.refused++; s.refused <= contract.MaxReports {
		s.report(contract.Refused{Endpoint: e, Err: err})
	}
	c.Answer(contract.Errno(err))
}
