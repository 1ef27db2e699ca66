package listeners

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// NotAllowed says that the workers' user may not listen on a port, and nothing has
// allowed it.
type NotAllowed struct {
	Port int
	User int
}

// Unwrap returns what the kernel would say.
func (e *NotAllowed) Unwrap() error { return unix.EACCES }

func (e *NotAllowed) Error() string {
	return fmt.Sprintf("port %d is privileged, and workers run as user %d (--user); use --allow %d, or --listen %d", e.Port, e.User, e.Port, e.Port)
}

// permits reports whether a worker may have what it asks for: what its user could bind,
// what was allowed, or a socket that a service manager has passed for it. (The path of a
// unix socket is the kernel's to judge, see bindUnix.)
func (t *Table) permits(e Endpoint) error {
	u := t.cfg.User
	if u == nil || u.UID == 0 || e.Family == Unix || e.Port <= 0 || e.Port >= linux.UnprivilegedPort() {
		return nil
	}
	var at []netip.AddrPort
	if addr, err := netip.ParseAddr(e.Addr); err == nil && !e.Any {
		at = append(at, netip.AddrPortFrom(addr, uint16(e.Port)))
	} else {
		for _, any := range []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()} {
			at = append(at, netip.AddrPortFrom(any, uint16(e.Port)))
		}
	}
	for _, a := range at {
		if t.cfg.Allowed != nil && t.cfg.Allowed(a) {
			return nil
		}
		for _, p := range t.inherited {
			if e.Type == Stream && p.addr == a {
				return nil
			}
		}
	}
	return &NotAllowed{e.Port, u.UID}
}
