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
		{"MPTCP is TCP", "a held socket is TCP, to which MPTCP falls back where a peer has none: steering and adoption know TCP alone. Its options are TCP's. It takes the place of the program's own, where another worker has the address at its bind already, under the descriptor that binds, or listens: a duplicate made before stays MPTCP, and what connect(2) or shutdown(2) did before listen is gone.",
			func(c *comparison, d Difference) bool {
				early := func(s *traced) bool {
					return s.kind == "mptcp" && (s.duplicated || s.connected || s.shut || s.addr != "" && !s.listens)
				}
				return d.socket["SO_PROTOCOL"] == "262" || c.first.any(early) || d.second() && c.second.any(early)
			}},
		{"SO_REUSEPORT reads 1", "a held TCP or UDP address has a group of sockets, which the kernel knows by that option; it is set at listen, or at bind where another worker has the address.",
			func(c *comparison, d Difference) bool {
				return (strings.HasSuffix(d.Label, " SO_REUSEPORT")) && strings.HasSuffix(d.Handoff, "1")
			}},
		{"SO_REUSEPORT cleared, or a device set, on a socket that listens already", "the kernel steers among sockets with the same of both. The one is set again within a second; the other stays the program's. Set it before bind: then the socket is the program's own, as the log says.",
			func(c *comparison, d Difference) bool {
				return c.about(d, func(s *traced) bool { return s.kind == "tcp" && s.changed })
			}},
		{"a close is learned at the worker's next call", "close(2) is not intercepted: until the worker binds or listens again, or ends, its address is open, and who connects waits.",
			func(c *comparison, d Difference) bool {
				closed := func(s *traced) bool { return s.closed && (s.listens || s.kind == "udp") }
				switch {
				case d.Part == "first" && d.net():
					return c.first.any(closed)
				case d.Part == "first":
					return c.about(d, func(s *traced) bool { return c.first.connects(s, c.first.closes) })
				case d.Part == "second" && c.about(d, func(s *traced) bool { return c.second.connects(s, c.second.closes) }):
					return true
				}
				return d.Handoff == "accepted by nobody" && d.Bare == "ECONNREFUSED" && c.about(d, closed)
			}},
		{"shutdown(2) of a held listening TCP socket, or connect(2) with AF_UNSPEC, is undone", "connections wait in its queue, which no other socket can accept from. A close is what takes an address back.",
			func(c *comparison, d Difference) bool {
				shut := func(s *traced) bool { return s.kind == "tcp" && s.shut && s.listens }
				return !strings.Contains(d.Label, " set ") && (c.about(d, shut) || (d.second() || d.net()) && c.first.any(shut))
			}},
		{"a socket that is bound to a device is not beside those of the first generation", "it is the program's own, as the log says: the kernel refuses the second one's bind (EADDRINUSE) until the first has ended.",
			func(c *comparison, d Difference) bool {
				return d.second() && c.second.any(func(s *traced) bool { return s.device && slices.ContainsFunc(s.tried, c.serves) })
			}},
		{"a socket of another user than those of the first generation is not beside them", "the kernel lets only sockets of one user overlap: a program that binds as several (as root, and as who it becomes) cannot be started beside itself where their addresses overlap. At the same address handoff's own socket takes the place.",
			func(c *comparison, d Difference) bool {
				return d.second() && c.about(d, func(s *traced) bool {
					return s.kind == "tcp" && c.first.any(func(o *traced) bool {
						return o.listens && o.user != s.user && o.port() != "" && slices.Contains(s.tried, o.port())
					})
				})
			}},
		{"a bind that fails in another thread, or process, counts until that makes its next call", "what the kernel says to it is seen then: a bind that overlaps with it seems to be the program's own conflict, and is refused beside the first generation.",
			func(c *comparison, d Difference) bool {
				return d.second() && c.about(d, func(s *traced) bool {
					return c.second.any(func(o *traced) bool {
						return o != s && o.refused && o.process != s.process && slices.ContainsFunc(o.tried, func(p string) bool { return slices.Contains(s.tried, p) })
					})
				})
			}},
		{"an address of the first generation answers before the second one has bound it", "it is open, and the first one serves: a program that connects to its own address before it binds it gets there.",
			func(c *comparison, d Difference) bool {
				return d.second() && c.about(d, func(s *traced) bool { return c.second.connects(s, c.serves) })
			}},
		{"a more specific address of a new generation is bound to no device before that serves", "the kernel prefers it: SO_BINDTOIFINDEX keeps its connections away until then (with CAP_NET_RAW; without, they come at once).",
			func(c *comparison, d Difference) bool {
				return d.Part == "second" && (d.Handoff == "2147483647" && strings.HasSuffix(d.Label, " SO_BINDTOIFINDEX") || d.Handoff == "ENODEV" && strings.HasSuffix(d.Label, " SO_BINDTODEVICE"))
			}},
		{":: of the first generation gets the connections for ::ffff:0.0.0.0 of the second, until it ends", "both are IPv6 sockets that any IPv4 address fits, and the kernel takes the older one.",
			func(c *comparison, d Difference) bool {
				return d.Part == "turned" && taken(d.Bare) && c.about(d, func(s *traced) bool {
					return s.kind != "unix" && strings.HasPrefix(s.addr, "6/::ffff:0.0.0.0/") && c.second.any(func(o *traced) bool { return o == s })
				}) &&
					c.first.any(func(s *traced) bool { return strings.HasPrefix(s.addr, "6/::/") && s.listens })
			}},
		{"the file of a unix socket that its worker has closed is no obstacle", "as long as that worker lives, its address is held: the next generation's bind is answered, where bare a stale file is in the way (EADDRINUSE), and a socket of the other type is refused, where bare the abstract name is free.",
			func(c *comparison, d Difference) bool {
				return d.Part != "first" && d.Part != "files" && d.aboutNames() && c.first.any(func(s *traced) bool { return s.kind == "unix" && s.listens && s.closed })
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
		{"a UDP socket that is bound to a device is the program's own", "others of one generation, or of the next, bind beside it as a second copy would, also where it was bound to the device after it had its address.",
			func(c *comparison, d Difference) bool {
				device := func(s *traced) bool { return s.kind == "udp" && s.device }
				return c.about(d, device) || d.second() && c.second.any(device)
			}},
		{"which of several UDP sockets with SO_REUSEPORT gets a datagram", "bare the kernel's hash chooses one, of one process or of several.",
			func(c *comparison, d Difference) bool {
				return strings.HasPrefix(d.Bare, "udp taken") && strings.HasPrefix(d.Handoff, "udp taken") && d.Bare[len(d.Bare)-1] == d.Handoff[len(d.Handoff)-1] && c.says("SO_REUSEPORT")
			}},
		{"a UDP socket that was connected has left its group for good", "where it is connected no longer, or to port 0, it is steered to no more; nothing brings it back into the group.",
			func(c *comparison, d Difference) bool {
				return (d.Part == "turned" || d.Part == "gone") && strings.HasPrefix(d.Bare, "udp taken") && c.second.any(func(s *traced) bool { return s.kind == "udp" && s.connected })
			}},
		{"where a reload changes the address of UDP, the more specific one gets the datagrams", "127.0.0.1 and 0.0.0.0, or an IPv4 address and its form in IPv6: the kernel prefers it, that of a new generation from its bind on, that of the one before until it has ended.",
			func(c *comparison, d Difference) bool {
				other := map[string]string{"turned": "generation 1", "beside": "generation 2"}[d.Part]
				return other != "" && strings.HasPrefix(d.Bare, "udp taken") && strings.HasSuffix(d.Handoff, other) && c.bare.First != c.bare.Second
			}},
		{"a stream socket that connects to a datagram socket's path of the first generation is told so", "the program's own datagram socket is there as long as that generation lives: EPROTOTYPE, or EPERM if it is connected, in the place of ECONNREFUSED.",
			func(c *comparison, d Difference) bool {
				return d.Part == "second" && strings.Contains(d.Label, " connect ") && (d.Handoff == "EPROTOTYPE" || d.Handoff == "EPERM") && d.aboutNames()
			}},
		{"the kernel's tables show every generation", "/proc/net/tcp and its like are of the network namespace: beside another generation, a program sees the other's sockets there.",
			func(c *comparison, d Difference) bool {
				return d.Part == "second" && d.net()
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

// about reports whether a difference is about such a socket of a script that a part is about:
// that one, or its port.
func (c *comparison) about(d Difference, is func(*traced) bool) bool {
	if d.traced != nil && is(d.traced) {
		return true
	}
	ports := d.ports()
	same := func(s *traced) bool {
		return slices.ContainsFunc(s.tried, func(port string) bool { return slices.Contains(ports, port) }) && is(s)
	}
	if strings.HasSuffix(d.Label, " of generation 2") { // a port that the kernel has chosen
		same = is
	}
	return c.first.any(same) || d.second() && c.second.any(same)
}

// net reports whether a difference is in the kernel's tables.
func (d Difference) net() bool {
	return strings.HasPrefix(d.Label, "net ") || strings.HasSuffix(d.Label, " net")
}

// second reports whether the second generation has a part in a difference.
func (d Difference) second() bool { return d.Part != "first" && d.Part != "files" && d.Part != "alone" }

// serves reports whether the first generation serves at a port.
func (c *comparison) serves(port string) bool {
	return port != "" && slices.ContainsFunc(linesOf(c.bare.Alone), func(l line) bool { return taken(l.value) && strings.HasSuffix(l.label, "/"+port) })
}

// says reports whether a script has a word.
func (c *comparison) says(word string) bool {
	return strings.Contains(c.bare.First+c.bare.Second, word)
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
