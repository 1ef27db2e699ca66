package bindprop

import (
	"slices"
	"strings"
)

// Known is a difference that is meant, or that cannot be otherwise. docs/internals/bind.md
// has the list: go test ./internal/bindprop -update.
type Known struct {
	Name   string
	Reason string
	is     func(*comparison, Difference) bool
}

// Differences is the list.
func Differences() []Known {
	return []Known{
		{"MPTCP is TCP", "a held socket is TCP, to which MPTCP falls back where a peer has none: steering and adoption know TCP alone. Its options are TCP's.",
			func(c *comparison, d Difference) bool { return d.socket["SO_PROTOCOL"] == "262" }},
		{"SO_REUSEPORT reads 1", "a held TCP or UDP address has a group of sockets, which the kernel knows by that option; it is set at listen, or at bind where another worker has the address.",
			func(c *comparison, d Difference) bool {
				return strings.HasSuffix(d.Label, " SO_REUSEPORT") && strings.HasSuffix(d.Handoff, "1")
			}},
		{"a close is learned at the worker's next call", "close(2) is not intercepted: until the worker binds or listens again, or ends, its address is open, and who connects waits.",
			func(c *comparison, d Difference) bool {
				return d.Handoff == "accepted by nobody" && d.Bare == "ECONNREFUSED"
			}},
		{"shutdown(2) of a held listening TCP socket is undone", "connections wait in its queue, which no other socket can accept from. A close is what takes an address back.",
			func(c *comparison, d Difference) bool {
				return c.did(d.Part, "shutdown", "0") && !strings.Contains(d.Label, " set ") && d.socket["peercred"] == ""
			}},
		{"getsockname of a held unix socket is empty between bind and listen", "the next worker's bind of a held path is answered: its file is the first one's, and stays. From listen on the address is there.",
			func(c *comparison, d Difference) bool {
				return d.Part == "second" && d.socket["peercred"] != "" && strings.HasSuffix(d.Label, " sockname") && d.Handoff == "n/"
			}},
		{"the file of a held unix socket is not removed or replaced while the service runs", "there is no instant without the path, whoever unlinks it at its start or exit. The call is answered with success, also where the user may not; at a stop it is done.",
			func(c *comparison, d Difference) bool {
				n := names(c.bare)
				return d.aboutNames() && (n.first || n.second && d.Part != "first" && d.Part != "files" && d.Part != "alone")
			}},
		{"a duplicate made before listen keeps the program's first socket", "where a held unix socket takes the place of a program's own, it is put under the descriptor that listens, in the process that calls: dup(2) or fork(2) before listen have duplicated what is not listened on.",
			func(c *comparison, d Difference) bool {
				dups := c.did("second", "dup", "") || c.did("second", "dup2", "") || c.did("second", "fork", "ok")
				return dups && d.aboutNames() && d.Part != "first" && d.Part != "files" && d.Part != "alone" && d.Part != "left"
			}},
		{"a datagram socket at a path is the program's own", "a second generation that unlinks or renames the path takes it from the first, as a second copy would.",
			func(c *comparison, d Difference) bool {
				return (d.Part == "beside" || d.Part == "turned") && strings.HasPrefix(d.Bare, "dgram taken")
			}},
		{"the kernel's tables show every generation", "/proc/net/tcp and its like are of the network namespace: beside another generation, a program sees the other's sockets there.",
			func(c *comparison, d Difference) bool {
				return d.Part == "second" && (strings.HasPrefix(d.Label, "net ") || strings.HasSuffix(d.Label, " net"))
			}},
	}
}

func (c *comparison) known(d Difference) *Known {
	for _, k := range Differences() {
		if k.is(c, d) {
			return &k
		}
	}
	return nil
}

// did reports whether a script that a part is about has made a call with that result, bare;
// "": with any.
func (c *comparison) did(part, call, result string) bool {
	said := c.bare.First
	if part != "first" && part != "files" && part != "alone" {
		said += c.bare.Second
	}
	return slices.ContainsFunc(linesOf(said), func(l line) bool {
		f := strings.Fields(l.label)
		return len(f) > 2 && f[2] == call && (result == "" || l.value == result)
	})
}
