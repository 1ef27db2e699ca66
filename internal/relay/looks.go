package relay

import "bytes"

// Verdict is what the first bytes of a connection look like.
type Verdict uint8

const (
	More  Verdict = iota // may become a request of HTTP/1
	HTTP1                // a request of HTTP/1 begins
	Other                // another protocol
)

func (v Verdict) String() string { return [...]string{"more", "HTTP/1", "other"}[v] }

const (
	// PeekSize is how many bytes Looks wants to see at most.
	PeekSize  = 8 << 10
	maxMethod = 32
	maxEmpty  = 8
)

// Looks judges bytes that have been looked at without reading them. A request line decides:
// a method, a target and HTTP/1.0 or 1.1. One that is longer than PeekSize is taken for
// what it has looked like so far.
func Looks(peeked []byte) Verdict {
	b := bytes.TrimLeft(peeked, "\r\n") // some clients end a body with an empty line that belongs to nothing
	if len(peeked)-len(b) > maxEmpty {
		return Other
	}
	if len(b) == 0 {
		return More
	}
	method, rest, found := bytes.Cut(b, []byte(" "))
	if !isToken(method) || len(method) > maxMethod {
		return Other
	}
	if !found {
		return More
	}
	line, _, ended := bytes.Cut(rest, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	target, version, found := bytes.Cut(line, []byte(" "))
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return Other
		}
	}
	switch {
	case found && !mayBeVersion(version):
		return Other
	case !ended && len(peeked) >= PeekSize:
		return HTTP1
	case !ended:
		return More
	case !found || len(target) == 0 || minorVersion(version) < 0:
		return Other
	}
	return HTTP1
}

// mayBeVersion tells whether HTTP/1.0 or HTTP/1.1 begins so.
func mayBeVersion(b []byte) bool {
	for _, v := range []string{"HTTP/1.0", "HTTP/1.1"} {
		if bytes.HasPrefix([]byte(v), b) {
			return true
		}
	}
	return false
}
