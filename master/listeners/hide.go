package listeners

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// A service may listen on another address than before that overlaps with it: 127.0.0.1:80,
// then 0.0.0.0:80. The kernel gives a connection to the more specific one, at which nobody of
// the new generation accepts: that one is hidden, and closed when its workers have ended. The
// other way round, the new address is aside until its generation is put into service.

// hideCovered hides the addresses at which a target has accepted, and none does now, and that are covered by one at
// which one does.
func (t *Table) hideCovered() error {
	var errs []error
	for _, a := range t.list {
		if !a.tcp() || a.hidden() || !a.served || a.preopened || a.accepted(t.targets) {
			continue
		}
		if slices.ContainsFunc(t.list, func(b *Address) bool { return b.covers(a.group.Addr(), a.group.V6Only()) && b.accepted(t.targets) }) {
			errs = append(errs, a.group.Hide())
		}
	}
	return errors.Join(errs...)
}

// isCovered reports whether connections to an address come to another one, which is served.
func (t *Table) isCovered(at netip.AddrPort, v6only bool) bool {
	return slices.ContainsFunc(t.list, func(a *Address) bool { return a.covers(at, v6only) && a.accepted(t.targets) })
}

// covers reports whether a connection to the other address comes to this one where that is
// not open.
func (a *Address) covers(at netip.AddrPort, v6only bool) bool {
	if !a.tcp() || a.hidden() || !Overlap(a.group.Addr(), a.group.V6Only(), at, v6only) {
		return false
	}
	wide, narrow := a.group.Addr().Addr().Unmap(), at.Addr().Unmap()
	if wide == narrow { // the kernel prefers the socket of IPv4
		return a.group.Addr().Addr().Is4In6() && at.Addr().Is4()
	}
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
