package listeners

import (
	"net/netip"
)

// Family is the kind of an endpoint's address.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
	Unix // a path; an abstract name begins with @ or a zero byte
)

// Endpoint is what a worker wants to listen on. Equal endpoints, of one worker after
// another or of several, mean the same sockets.
type Endpoint struct {
	Family Family
	Type   Type
	Addr   string // an IP address, or a path
	Any    bool   // no address was said: both families where there are both
	Port   int    // 0: any that is free
	V6Only bool   // an IPv6 wildcard that leaves IPv4 alone
	Index  int    // tells several ports 0 of one program apart
}

// TCP returns the endpoint of an address.
func TCP(at netip.AddrPort, v6only bool) Endpoint {
	e := Endpoint{Family: IPv4, Addr: at.Addr().String(), Port: int(at.Port())}
	if at.Addr().Is6() {
		e.Family, e.V6Only = IPv6, v6only
	}
	return e
}

// meant tells whether a worker that says that it accepts at said does so by this
// endpoint: where any port will do, said has the one that it got.
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
