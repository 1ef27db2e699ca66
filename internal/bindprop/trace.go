package bindprop

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// trace is what a script has done, by what its calls returned bare: which socket each line is
// about, and what was done with it.
type trace struct {
	sockets []*traced
	at      map[string]*traced // by the label of a line
	fds     [4]map[int]held    // by process; nil: there is none
	users   [4]int             // by process
	looks   map[string]int
}

// held is a descriptor.
type held struct {
	*traced
	cloexec bool
}

// traced is a socket.
type traced struct {
	kind    string // tcp, mptcp, udp, or unix
	addr    string // that it is bound to; "": none
	user    int    // whose it is
	process int    // that has bound it, or tried to
	refused bool   // then
	listens bool
	closed  bool // nobody has it
	learned bool // after that, the program has bound, or listened
	// Before it listened, it was duplicated, or connected; it was shut down; while it listened,
	// SO_REUSEPORT was cleared, or it was bound to a device; it was bound to one before.
	duplicated, connected, shut, changed, device bool
	tried                                        []string // ports to which it was to be bound
}

func (t *traced) port() string { return portIn(t.addr) }

// portIn is the port of an address of the internet, in the words of scripts: p0; "": there is none.
func portIn(addr string) string {
	for _, f := range strings.Fields(addr) {
		if i := strings.LastIndex(f, "/"); i > 0 && (f[0] == '4' || f[0] == '6') && f[i+1:] != "0" {
			return f[i+1:]
		}
	}
	return ""
}

func traceOf(text string) *trace {
	t := &trace{at: map[string]*traced{}, looks: map[string]int{}}
	t.fds[0] = map[int]held{}
	for _, l := range linesOf(text) {
		f := strings.Fields(l.label)
		switch {
		case len(f) == 3 && f[0] == "look":
			t.look(l.label, f)
		case len(f) > 2 && len(f[1]) == 1:
			if p := int(f[1][0] - '0'); p >= 0 && p < len(t.fds) && t.fds[p] != nil {
				t.step(l, p, f[2], f[3:])
			}
		}
	}
	return t
}

func (t *trace) look(label string, f []string) {
	var p, fd int
	fmt.Sscanf(f[1]+" "+f[2], "p%d f%d", &p, &fd)
	if t.looks[label]++; t.looks[label] > 1 {
		label = fmt.Sprint(label, " #", t.looks[label])
	}
	if p < len(t.fds) {
		t.at[label] = t.fds[p][fd].traced
	}
}

func (t *trace) step(l line, p int, call string, args []string) {
	arg := func(i int) int {
		if i >= len(args) {
			return -1
		}
		n, _ := strconv.Atoi(args[i])
		return n
	}
	result, err := strconv.Atoi(l.value)
	ok := err == nil
	fds := t.fds[p]
	s := fds[arg(0)].traced
	t.at[l.label] = s
	switch {
	case call == "socket" && ok:
		s = &traced{kind: kindOf(arg(0), arg(2), arg(1)), user: t.users[p]}
		t.sockets = append(t.sockets, s)
		fds[result] = held{s, arg(1)&0o2000000 != 0}
		t.at[l.label] = s
	case call == "user" && ok:
		t.users[p] = arg(0)
	case call == "close" && ok:
		delete(fds, arg(0))
	case (call == "dup" || call == "dup2") && ok:
		fds[result] = held{s, false}
		if s != nil && !s.listens && arg(0) != result {
			s.duplicated = true
		}
	case call == "setfd" && ok:
		fds[arg(0)] = held{s, arg(1) == 1}
	case call == "exec":
		maps.DeleteFunc(fds, func(_ int, h held) bool { return h.cloexec })
	case call == "fork" && l.value == "ok":
		t.fds[arg(0)&3], t.users[arg(0)&3] = maps.Clone(fds), t.users[p]
		for _, h := range fds {
			if h.traced != nil && !h.listens {
				h.duplicated = true
			}
		}
	case call == "reap" && l.value == "ok":
		t.fds[arg(0)&3] = nil
	}
	if call == "bind" || call == "listen" {
		t.learn()
	}
	if s != nil {
		s.note(p, call, args, ok)
	}
	t.close()
}

func (s *traced) note(process int, call string, args []string, ok bool) {
	switch {
	case call == "bind":
		s.process, s.refused = process, !ok
		if s.tried = append(s.tried, portIn(args[1])); ok {
			s.addr = args[1]
		}
	case call == "listen" && ok:
		s.listens = true
	case call == "connect" && !s.listens:
		s.connected = true
	case call == "shutdown", call == "connect" && s.listens && args[1] == "x/": // AF_UNSPEC ends it, too
		s.shut = true
	case call == "set" && ok && !s.listens && strings.HasPrefix(args[1], "SO_BINDTO"):
		s.device = true
	case call == "set" && ok && s.listens && (strings.HasPrefix(args[1], "SO_BINDTO") || args[1] == "SO_REUSEPORT" && args[2] == "0"):
		s.changed = true
	}
}

// learn is when the program's next call comes.
func (t *trace) learn() {
	for _, s := range t.sockets {
		s.learned = s.learned || s.closed
	}
}

func (t *trace) close() {
	for _, s := range t.sockets {
		s.closed = !slices.ContainsFunc(t.fds[:], func(fds map[int]held) bool {
			for _, h := range fds {
				if h.traced == s {
					return true
				}
			}
			return false
		})
	}
}

func kindOf(domain, protocol, typ int) string {
	switch {
	case domain == 1:
		return "unix"
	case typ&15 == 2:
		return "udp"
	case protocol == 262:
		return "mptcp"
	}
	return "tcp"
}

// any reports whether a socket is one that is meant.
func (t *trace) any(is func(*traced) bool) bool { return slices.ContainsFunc(t.sockets, is) }

// connects reports whether a socket was to be connected to such a port.
func (t *trace) connects(s *traced, to func(port string) bool) bool {
	for label, of := range t.at {
		if f := strings.Fields(label); of == s && len(f) > 4 && f[2] == "connect" && to(portIn(f[4])) {
			return true
		}
	}
	return false
}

// closes reports whether a socket that listened at a port was closed.
func (t *trace) closes(port string) bool {
	return port != "" && t.any(func(s *traced) bool { return s.closed && s.listens && s.port() == port })
}
