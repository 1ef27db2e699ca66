package listeners

import (
	"net/netip"
)

// Family is the family of an endpoint's address.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
	Unix // a path; an abstract name begins with @ or a zero byte
)

// Endpoint is what a worker requests to listen on. Equal endpoints, also of several
// workers, mean the same sockets.
type Endpoint struct {
	Family Family
	Type   Type
	Addr   string // an IP address, or a path
	Any    bool   // no address was given: both families if possible
	Port   int    // 0: any free one
	V6Only bool   // an IPv6 wildcard without IPv4
	Index  int    // distinguishes several ports 0 of one program
}

// TCP returns the endpoint of an address.
func TCP(at netip.AddrPort, v6only bool) Endpoint {
	e := Endpoint{Family: IPv4, Addr: at.Addr().String(), Port: int(at.Port())}
	if at.Addr().Is6() {
		e.Family, e.V6Only = IPv6, v6only
	}
	return e
}

// meant reports whether a worker that accepts at said does so by this endpoint: for port
// 0, said has the chosen one.
func (e Endpoint) meant(said Endpoint) bool {
	said.V6Only = e.V6Only
	switch {
	case e.Family == Unix:
		said.Index = e.Index
	case e.Port == 0:
		said.Port = 0
	default:
		said.Index = e.Index
	}
	return e == said
}
