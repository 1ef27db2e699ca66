package readiness

import (
	"net/netip"
	"slices"
	"strings"
)

// Address is what a worker accepts on.
type Address struct {
	Key  string         `json:"key"`  // equal ones are the same sockets
	Name string         `json:"name"` // for people
	At   netip.AddrPort `json:"at"`   // zero: it has a path or an abstract name
	UDP  bool           `json:"udp,omitempty"`
	Only bool           `json:"only,omitempty"` // IPv6 alone, where At is IPv6
}

// Covers reports whether whoever connects to b reaches who accepts on a: it is the same, by
// whatever name, or a is of every address of the machine. That :: has IPv4, too, is no
// reason to miss it where 0.0.0.0 is accepted on in its place, which is what most mean
// who bind either.
func (a Address) Covers(b Address) bool {
	if a.Key == b.Key && a.Key != "" {
		return true
	}
	if !a.At.IsValid() || !b.At.IsValid() {
		return a.Name == b.Name && a.At == b.At
	}
	if a.UDP != b.UDP || a.At.Port() != b.At.Port() {
		return false
	}
	have, want := a.At.Addr().Unmap(), b.At.Addr().Unmap()
	switch {
	case have == want:
		return !a.Only || b.Only || !want.IsUnspecified()
	case !have.IsUnspecified():
		return false
	case have.Is4():
		return want.Is4() || want.IsUnspecified() && !b.Only
	}
	return want.Is6() || !a.Only
}

// In reports whether one of them covers a.
func (a Address) In(all []Address) bool { return covered(a, all) }

// covered reports whether one of them covers b.
func covered(b Address, by []Address) bool {
	return slices.ContainsFunc(by, func(a Address) bool { return a.Covers(b) })
}

// Names are the addresses' names, in a sentence.
func Names(all []Address) string {
	var names []string
	for _, a := range all {
		names = append(names, a.Name)
	}
	return strings.Join(names, ", ")
}

// option is how --may-drop names an address.
func (a Address) option() string {
	if a.At.IsValid() {
		return "--may-drop " + a.At.String()
	}
	return "--may-drop " + a.Name
}
