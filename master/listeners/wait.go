package listeners

import (
	"slices"
	"time"
)

// Workers converts the numbers of workers.
func Workers[ID ~int](ids []ID) (workers []Worker) {
	for _, id := range ids {
		workers = append(workers, Worker(id))
	}
	return workers
}

// GiveWay names the workers that must end before others can start in their place: where
// nobody else accepts, [Table.Steer] lets new connections wait from then on, in sockets that
// the next workers take.
func (t *Table) GiveWay(leaving []Worker, now time.Time) { t.leaving, t.now = leaving, now }

// LetsWait reports whether connections of an address wait for the next worker.
func (t *Table) LetsWait() bool {
	return slices.ContainsFunc(t.list, func(a *Address) bool { return !a.waits.IsZero() })
}

// letWait begins or ends the time in which the connections of an address wait.
func (t *Table) letWait(a *Address) error {
	served, left := false, false
	for _, l := range a.leases {
		served = served || l.listening && slices.Contains(t.targets, l.worker)
		left = left || l.listening && slices.Contains(t.leaving, l.worker)
	}
	switch {
	case served && !a.waits.IsZero():
		n := 0
		if a.group != nil {
			n = a.group.Waited()
		}
		waited := t.now.Sub(a.waits)
		a.waits, a.waited = time.Time{}, max(a.waited, waited)
		t.note(Waited{a, waited, n})
	case !served && left:
		if a.waits.IsZero() {
			a.waits = t.now
		}
		if a.group != nil {
			return a.group.LetWait(max(len(t.targets), 1))
		}
	}
	return nil
}
