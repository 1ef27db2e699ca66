package listeners

import (
	"errors"
	"slices"
	"time"
)

// A service may listen on another address than before that overlaps with it: 127.0.0.1:80,
// then 0.0.0.0:80. The kernel gives a connection to the more specific one, at which nobody of
// the new generation accepts: that one is hidden, and closed when its workers have ended.

// hideCovered hides the addresses at which no target accepts, and that are covered by one at
// which one does.
func (t *Table) hideCovered() error {
	var errs []error
	for _, a := range t.list {
		if !a.tcp() || a.hidden() || a.preopened || a.accepted(t.targets) {
			continue
		}
		if slices.ContainsFunc(t.list, func(b *Address) bool { return b.covers(a) && b.accepted(t.targets) }) {
			errs = append(errs, a.group.Hide())
		}
	}
	return errors.Join(errs...)
}

// covers reports whether a connection to the other address comes to this one once that is
// gone.
func (a *Address) covers(o *Address) bool {
	if a == o || !a.tcp() || a.hidden() || !Overlap(a.group.Addr(), a.group.V6Only(), o.group.Addr(), o.group.V6Only()) {
		return false
	}
	wide, narrow := a.group.Addr().Addr(), o.group.Addr().Addr()
	return wide.IsUnspecified() && (!narrow.IsUnspecified() || wide.Is6() && narrow.Is4())
}

func (a *Address) hidden() bool { return a.group != nil && a.group.Hidden() }

// graceOf is how long an address without a lease is kept: a hidden one not at all, but for
// the time between two looks.
func (t *Table) graceOf(a *Address) time.Duration {
	if a.hidden() {
		return min(t.cfg.Grace, 100*time.Millisecond)
	}
	return t.cfg.Grace
}
