package bindprop

import "strings"

// Known is a difference that is meant, or that cannot be otherwise: docs/internals/bind.md
// has the list.
type Known struct {
	Name   string
	Reason string
	is     func(Pair, Difference) bool
}

// Differences is the list.
func Differences() []Known {
	return []Known{
		{"MPTCP is TCP", "a held socket is TCP, to which MPTCP falls back where a peer has none: steering and adoption know TCP alone. Its options are TCP's.",
			func(_ Pair, d Difference) bool { return d.MPTCP }},
		{"SO_REUSEPORT reads 1", "a held TCP address has a group of sockets, which the kernel knows by that option.",
			func(_ Pair, d Difference) bool {
				return strings.HasSuffix(d.Label, " SO_REUSEPORT") && d.Handoff == "1"
			}},
		{"a datagram socket at a path is the program's own", "a second generation that unlinks or renames the path takes it from the first, as a second copy would.",
			func(_ Pair, d Difference) bool {
				return (d.Part == "beside" || d.Part == "turned") && strings.HasPrefix(d.Bare, "dgram taken")
			}},
		{"the kernel's tables show every generation", "/proc/net/tcp and its like are of the network namespace: beside another generation, a program sees the other's sockets there.",
			func(_ Pair, d Difference) bool {
				return d.Part == "second" && (strings.HasPrefix(d.Label, "net ") || strings.HasSuffix(d.Label, " net"))
			}},
	}
}

func known(p Pair, d Difference) *Known {
	for _, k := range Differences() {
		if k.is(p, d) {
			return &k
		}
	}
	return nil
}
