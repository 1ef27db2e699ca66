package bindprop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Script is what a program does: a step a line, "PROCESS CALL ARGUMENTS". Descriptors are
// the kernel's numbers. Addresses are 4/HOST/PORT, 6/HOST/PORT, u/PATH (relative), U/PATH
// (absolute), @/NAME (abstract); a port is p0 to p7, or 0.
type Script []string

// Pair is what is run: the script of the first generation, and of the second.
type Pair struct{ First, Second Script }

// Steps is the number of steps of both.
func (p Pair) Steps() int { return len(p.First) + len(p.Second) }

// Generate makes a pair of scripts. The second is the first, or has some steps more, less,
// or other ones.
// about says which kinds of sockets: "" is for any mixture.
func Generate(seed uint64, about string) Pair {
	r := rand.New(rand.NewPCG(seed, 17))
	theme := about
	if about == "" {
		theme = one(r, "mptcp", "tcp", "tcp", "tcp", "tcp", "tcp", "tcp", "tcp", "udp", "udp", "udp", "udp", "unix", "unix", "unix", "unix", "unix", "unix", "", "", "", "", "", "")
	}
	g := &generator{Rand: r, kinds: strings.Fields(themes[theme]), fds: [4]map[int]int{{}, nil, nil, nil}}
	for n := 4 + r.IntN(28); len(g.script) < n; {
		g.step()
	}
	p := Pair{g.script, g.script}
	if r.IntN(4) == 0 {
		p.Second = nil
		for _, s := range p.First {
			switch r.IntN(12) {
			case 0:
			case 1:
				p.Second = append(p.Second, g.other(s))
			default:
				p.Second = append(p.Second, s)
			}
		}
	}
	return p
}

// themes are mixtures of kinds. MPTCP is alone: its options are others than those of the TCP
// that takes its place.
var themes = map[string]string{"mptcp": "mptcp", "tcp": "tcp", "udp": "udp", "unix": "stream seq dgram", "": "tcp udp stream seq dgram"}

// generator has a rough idea of which descriptors are open; where it is wrong, the step
// tries what a closed one does.
type generator struct {
	*rand.Rand
	kinds  []string // of sockets
	script Script
	fds    [4]map[int]int // by process, then by descriptor: an index into sockets; nil: no process
}

// sockets are the kinds, as socket(2) takes them: domain, type, protocol. 524288 is
// SOCK_CLOEXEC, 2048 SOCK_NONBLOCK.
var sockets = []struct {
	family byte
	kind   string
	args   string
}{
	{'4', "tcp", "2 1 0"}, {'4', "tcp", "2 524289 0"}, {'4', "tcp", "2 2049 0"},
	{'6', "tcp", "10 1 0"}, {'6', "tcp", "10 526337 0"},
	{'4', "udp", "2 2 0"}, {'4', "udp", "2 524290 0"}, {'6', "udp", "10 2 0"},
	{'4', "mptcp", "2 1 262"},
	{'u', "stream", "1 1 0"}, {'u', "stream", "1 524289 0"}, {'u', "stream", "1 2049 0"}, {'u', "seq", "1 5 0"}, {'u', "dgram", "1 2 0"},
}

func one[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (g *generator) say(p int, format string, args ...any) {
	g.script = append(g.script, fmt.Sprintf("%d %s", p, fmt.Sprintf(format, args...)))
}

// of returns a process, and one of its descriptors.
func (g *generator) of() (p, fd, kind int) {
	p = 0
	for k := 1; k < 4; k++ {
		if g.fds[k] != nil && g.IntN(3) == 0 {
			p = k
		}
	}
	open := slices.Sorted(maps.Keys(g.fds[p]))
	if len(open) == 0 || g.IntN(40) == 0 {
		return p, 3 + g.IntN(5), g.IntN(len(sockets))
	}
	fd = open[g.IntN(len(open))]
	if g.IntN(3) > 0 {
		fd = open[len(open)-1]
	}
	return p, fd, g.fds[p][fd]
}

func (g *generator) lowest(p int) int {
	fd := 3
	for {
		if _, ok := g.fds[p][fd]; !ok {
			return fd
		}
		fd++
	}
}

func (g *generator) kind() int {
	for {
		if k := g.IntN(len(sockets)); slices.Contains(g.kinds, sockets[k].kind) {
			return k
		}
	}
}

func (g *generator) address(kind int) string {
	port := one(g.Rand, "p0", "p0", "p0", "p0", "p1", "p1", "p2", "0")
	family := sockets[kind].family
	if g.IntN(60) == 0 {
		family = one(g.Rand, byte('4'), '6', 'u', 'x')
	}
	switch family {
	case '4':
		return "4/" + one(g.Rand, "127.0.0.1", "127.0.0.1", "127.0.0.1", "0.0.0.0", "0.0.0.0", "127.0.0.2", "10.9.9.9") + "/" + port
	case '6':
		return "6/" + one(g.Rand, "::", "::", "::1", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "fd00::9") + "/" + port
	case 'u':
		if g.IntN(6) == 0 {
			return one(g.Rand, "@/x", "@/x", "@/y", "n/")
		}
		return g.path()
	}
	return "x/"
}

func (g *generator) path() string {
	return one(g.Rand, "u/a", "u/a", "u/a", "U/a", "u/b", "u/d/a", "u/l/a", "U/d/b", "u/./a", "u/d/../b", "u/none/a", "U/l/"+strings.Repeat("long", 20))
}

// values are options with values to set, by family; 'a' is all.
var values = []struct {
	kind   string // of sockets; "": all
	family byte   // 0: all
	name   string
	values []string
}{
	{"", 0, "SO_REUSEADDR", []string{"1", "1", "1", "0"}}, {"", 0, "SO_REUSEADDR", []string{"1"}}, {"", 0, "SO_REUSEPORT", []string{"1", "1", "0"}},
	{"", 0, "SO_KEEPALIVE", []string{"1", "0"}}, {"", 0, "SO_RCVBUF", []string{"5000", "100000"}}, {"", 0, "SO_SNDBUF", []string{"7000", "90000"}},
	{"", 0, "SO_LINGER", []string{"1,0", "1,7", "0,3"}}, {"", 0, "SO_PRIORITY", []string{"3", "6"}}, {"", 0, "SO_MARK", []string{"7"}},
	{"", 0, "SO_RCVLOWAT", []string{"5"}}, {"", 0, "SO_RCVTIMEO", []string{"9"}}, {"", 0, "SO_SNDTIMEO", []string{"8"}}, {"", 0, "SO_TIMESTAMP", []string{"1"}},
	{"", 0, "SO_PASSCRED", []string{"1"}}, {"", 0, "SO_BUSY_POLL", []string{"50"}}, {"", 0, "SO_DONTROUTE", []string{"1"}}, {"", 0, "SO_OOBINLINE", []string{"1"}},
	{"", 0, "SO_MAX_PACING_RATE", []string{"99999,0"}}, {"", 0, "SO_TXREHASH", []string{"0"}}, {"", 0, "SO_RCVMARK", []string{"1"}}, {"", 0, "SO_ZEROCOPY", []string{"1"}},
	{"", '4', "SO_BINDTODEVICE", []string{"lo", "nodev"}}, {"", '6', "SO_BINDTODEVICE", []string{"lo"}}, {"", '4', "SO_BINDTOIFINDEX", []string{"1", "0"}},
	{"udp", 0, "SO_BROADCAST", []string{"1"}}, {"udp", 0, "SO_NO_CHECK", []string{"1"}}, {"udp", 0, "SO_RXQ_OVFL", []string{"1"}},
	{"", '4', "IP_TOS", []string{"16", "184"}}, {"", '4', "IP_TTL", []string{"9"}}, {"", '4', "IP_FREEBIND", []string{"1"}}, {"", '4', "IP_TRANSPARENT", []string{"1"}},
	{"", '4', "IP_MTU_DISCOVER", []string{"0", "2"}}, {"", '4', "IP_RECVERR", []string{"1"}}, {"", '4', "IP_MINTTL", []string{"5"}},
	{"", '4', "IP_BIND_ADDRESS_NO_PORT", []string{"1"}}, {"", '4', "IP_RECVTTL", []string{"1"}}, {"udp", '4', "IP_PKTINFO", []string{"1"}},
	{"", '6', "IPV6_V6ONLY", []string{"1", "1", "0"}}, {"", '6', "IPV6_TCLASS", []string{"16"}}, {"", '6', "IPV6_UNICAST_HOPS", []string{"9"}},
	{"", '6', "IPV6_RECVPKTINFO", []string{"1"}}, {"", '6', "IPV6_FREEBIND", []string{"1"}}, {"", '6', "IPV6_TRANSPARENT", []string{"1"}},
	{"", '6', "IPV6_MINHOPCOUNT", []string{"5"}}, {"", '6', "IPV6_MTU_DISCOVER", []string{"2"}}, {"", '6', "IPV6_DONTFRAG", []string{"1"}},
	{"tcp", 0, "TCP_NODELAY", []string{"1"}}, {"tcp", 0, "TCP_MAXSEG", []string{"900"}}, {"tcp", 0, "TCP_CORK", []string{"1"}}, {"tcp", 0, "TCP_KEEPIDLE", []string{"77"}},
	{"tcp", 0, "TCP_KEEPINTVL", []string{"11"}}, {"tcp", 0, "TCP_KEEPCNT", []string{"4"}}, {"tcp", 0, "TCP_SYNCNT", []string{"3"}}, {"tcp", 0, "TCP_LINGER2", []string{"5"}},
	{"tcp", 0, "TCP_WINDOW_CLAMP", []string{"30000"}}, {"tcp", 0, "TCP_CONGESTION", []string{"reno", "nonsense"}},
	{"tcp", 0, "TCP_USER_TIMEOUT", []string{"5000"}}, {"tcp", 0, "TCP_FASTOPEN", []string{"5"}}, {"tcp", 0, "TCP_NOTSENT_LOWAT", []string{"4000"}},
	{"tcp", 0, "TCP_SAVE_SYN", []string{"1"}}, {"tcp", 0, "TCP_INQ", []string{"1"}},
}

func (g *generator) set(p, fd, kind int) {
	if sockets[kind].kind == "mptcp" {
		return
	}
	for {
		v := values[g.IntN(len(values))]
		if v.kind != "" && v.kind != sockets[kind].kind || v.family != 0 && v.family != sockets[kind].family {
			if g.IntN(50) > 0 {
				continue
			}
		}
		g.say(p, "set %d %s %s", fd, v.name, one(g.Rand, v.values...))
		return
	}
}

func (g *generator) socket(p int) (fd, kind int) {
	kind, fd = g.kind(), g.lowest(p)
	if len(g.fds[p]) < 8 {
		g.fds[p][fd] = kind
		g.say(p, "socket %s", sockets[kind].args)
	}
	return fd, kind
}

func (g *generator) step() {
	p, fd, kind := g.of()
	s := sockets[kind]
	switch w := g.IntN(100); {
	case w < 16: // a server
		fd, kind = g.socket(p)
		for g.IntN(2) == 0 {
			g.set(p, fd, kind)
		}
		addr := g.address(kind)
		if sockets[kind].family == 'u' && g.IntN(2) == 0 {
			g.say(p, "unlink %s", strings.Replace(strings.Replace(addr, "@", "u", 1), "n/", "u/a", 1))
		}
		g.say(p, "bind %d %s", fd, addr)
		if sockets[kind].kind != "udp" && g.IntN(6) > 0 {
			g.say(p, "listen %d %d", fd, one(g.Rand, 16, 128, 4096))
		}
	case w < 21:
		g.socket(p)
	case w < 33:
		g.set(p, fd, kind)
	case w < 37 && s.kind != "mptcp":
		g.say(p, "get %d %s", fd, values[g.IntN(len(values))].name)
	case w < 45:
		g.say(p, "bind %d %s", fd, g.address(kind))
	case w < 52:
		g.say(p, "listen %d %d", fd, one(g.Rand, 16, 128))
	case w < 56:
		g.say(p, "accept %d", fd)
	case w < 61:
		g.say(p, "connect %d %s", fd, g.address(kind))
	case w < 68:
		g.say(p, "close %d", fd)
		delete(g.fds[p], fd)
	case w < 71:
		g.say(p, "dup %d", fd)
		g.fds[p][g.lowest(p)] = kind
	case w < 73:
		to := 3 + g.IntN(6)
		g.say(p, "dup2 %d %d", fd, to)
		g.fds[p][to] = kind
	case w < 75:
		if g.IntN(2) == 0 {
			g.say(p, "setfl %d %d", fd, one(g.Rand, 0, 2048))
		} else {
			g.say(p, "setfd %d %d", fd, one(g.Rand, 0, 1))
		}
	case w < 76:
		g.say(p, "shutdown %d %d", fd, g.IntN(3))
	case w < 79:
		if s.kind == "udp" || s.kind == "dgram" {
			g.say(p, one(g.Rand, "send %d %s", "recv %d"), g.args(fd, kind)...)
			g.trim()
		}
	case w < 80:
		g.say(p, "user %d", one(g.Rand, 0, 0, 1000))
	case w < 83:
		g.processes(p)
	case w < 86:
		g.say(p, "%s", one(g.Rand, "look", "look", "look", "look", "net"))
	default:
		if slices.Contains(g.kinds, "stream") {
			g.files(p)
		}
	}
}

// args are of send; recv takes only the first.
func (g *generator) args(fd, kind int) []any { return []any{fd, g.address(kind)} }

// trim removes what a format without room for it has said.
func (g *generator) trim() {
	last := &g.script[len(g.script)-1]
	*last, _, _ = strings.Cut(*last, "%!")
}

func (g *generator) processes(p int) {
	switch k := 1 + g.IntN(3); {
	case g.IntN(3) == 0:
		g.say(p, "exec")
		for fd, kind := range g.fds[p] {
			if strings.Contains(sockets[kind].args, " 52") {
				delete(g.fds[p], fd)
			}
		}
	case g.fds[k] == nil:
		g.say(p, "fork %d", k)
		g.fds[k] = maps.Clone(g.fds[p])
	default:
		g.say(0, "reap %d", k)
		g.fds[k] = nil
	}
}

func (g *generator) files(p int) {
	path := func() string {
		for {
			if a := g.path(); a != "u/none/a" {
				return a
			}
		}
	}
	switch g.IntN(9) {
	case 0, 1, 2:
		g.say(p, "unlink %s", path())
	case 3:
		g.say(p, "rename %s %s", path(), path())
	case 4:
		g.say(p, "chmod %s %s", path(), one(g.Rand, "600", "660", "777"))
	case 5:
		g.say(p, "umask %s", one(g.Rand, "0", "77", "22"))
	case 6:
		g.say(p, "chown %s %s", path(), one(g.Rand, "0", "1000"))
	case 7:
		g.say(p, one(g.Rand, "touch", "stat")+" %s", path())
	default:
		g.say(p, "stat %s", path())
	}
}

// other is another step in the place of one: another address, as a changed configuration
// has.
func (g *generator) other(s string) string {
	f := strings.Fields(s)
	if f[1] == "bind" {
		for k, v := range sockets {
			if v.family == f[3][0] {
				return strings.Join([]string{f[0], f[1], f[2], g.address(k)}, " ")
			}
		}
	}
	return f[0] + " look"
}
