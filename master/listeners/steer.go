package listeners

import (
	"errors"
	"slices"
	"time"

	"handoff/handoff"
)

// SetTargets sets the workers to which new connections go, one for each slot, 0 for an
// unserved slot. [Table.Steer] applies it.
func (t *Table) SetTargets(workers []Worker) { t.targets = slices.Clone(workers) }

// Targets are the workers, by slot, to which new connections go.
func (t *Table) Targets() []Worker { return slices.Clone(t.targets) }

// IsTarget reports whether new connections go to a worker.
func (t *Table) IsTarget(id Worker) bool { return slices.Contains(t.targets, id) }

// Steer makes the kernel send new connections to the targets, at every address. Call it
// when the targets, or the addresses on which they accept, have changed. An error means
// that the previous targets remain, at one address at least.
func (t *Table) Steer() error {
	var errs []error
	for _, a := range t.list {
		a.served = a.served || a.accepted(t.targets)
		errs = append(errs, t.letWait(a))
		if a.group == nil {
			errs = append(errs, a.steerPath(t.targets, t.cfg.User))
			continue
		}
		errs = append(errs, a.group.SteerEach(a.socketsOf(t.steered())))
		if a.group.Aside() && a.accepted(t.targets) {
			errs = append(errs, a.group.Show())
		}
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, t.hideCovered())
	}
	return errors.Join(errs...)
}

// socketsOf returns the sockets at which each worker accepts, in order. A program that opens
// several on one address has several, and with them no more connections than others.
func (a *Address) socketsOf(workers []Worker) (sockets [][]*handoff.Socket) {
	of := make(map[Worker][]*handoff.Socket, len(a.leases))
	for _, l := range a.leases {
		if l.listening && l.socket != nil {
			of[l.worker] = append(of[l.worker], l.socket)
		}
	}
	for _, id := range workers {
		sockets = append(sockets, of[id])
	}
	return sockets
}

// quietWait waits until a socket is quiet.
type quietWait interface {
	Look(now time.Time) (quiet bool, again time.Duration)
}

// quieting is a retiring worker that is not quiet yet.
type quieting struct {
	id    Worker
	until time.Time // the end of the grace, if there is no group
	waits []quietWait
	next  time.Time
}

// Quiesce starts to wait until a retiring worker is [Quiet]: no connection can reach it
// any more, and grace has passed, in which it registers what it has accepted.
func (t *Table) Quiesce(id Worker, now time.Time, grace time.Duration) {
	t.ForgetQuiet(id)
	q := &quieting{id: id, until: now.Add(grace), next: now}
	for _, a := range t.list {
		if l := a.LeaseOf(id); l != nil && l.socket != nil {
			q.waits = append(q.waits, l.socket.Quiet(now, grace))
		} else if s, ok := a.kind.(*shared); ok && l != nil && l.unix != 0 {
			q.waits = append(q.waits, &pathQuiet{s: s, inode: l.unix, grace: grace})
		}
	}
	t.quieting = append(t.quieting, q)
}

// ForgetQuiet ends the wait.
func (t *Table) ForgetQuiet(id Worker) {
	t.quieting = slices.DeleteFunc(t.quieting, func(q *quieting) bool { return q.id == id })
}

// lookQuiet checks whether connections can still reach the workers.
func (t *Table) lookQuiet(now time.Time) {
	t.quieting = slices.DeleteFunc(t.quieting, func(q *quieting) bool {
		if now.Before(q.next) {
			return false
		}
		q.next = time.Time{}
		if now.Before(q.until) {
			q.next = q.until
		}
		for _, wait := range q.waits {
			if ok, again := wait.Look(now); !ok {
				q.next = earlier(q.next, now.Add(again))
			}
		}
		if q.next.IsZero() {
			t.note(Quiet{q.id})
			return true
		}
		return false
	})
}

func (t *Table) quietDeadline() (next time.Time) {
	for _, q := range t.quieting {
		next = earlier(next, q.next)
	}
	return next
}
