package descendants

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A server with a process for each connection (inetd, sshd, socat, Python's ForkingMixIn)
// may end before its children: they finish what they have, also in a session of their own
// or as another program. Such a child is recognised by a connection that was accepted. The
// server itself, behind a shell that has ended, has connections too: it also listens, and
// is another program than its worker.

// Holding is what a process that may descend from a worker has of sockets.
type Holding struct {
	PID         int
	Start       uint64
	Connections []Connection
	Listening   []uint16 // ports of its TCP listeners
	ListensUnix bool     // it has a unix listener
	Hidden      bool     // it may not be looked into
}

// Connection is a connection of a process.
type Connection struct {
	Inode    uint64
	Port     uint16 // local; 0: it is no TCP connection
	Accepted bool   // by the looks of it
}

// lookTimeout is how long the sockets of what a worker has left are looked up.
const lookTimeout = time.Second

// maxHoldings bounds how many processes are looked into when a worker has ended.
const maxHoldings = 4 * maxMembers

// Holdings returns what those orphans, and what descends from them, have of sockets. Any
// goroutine may call it. Those that it has no time for are as ones that it may not look
// into.
func (t *Tracker) Holdings() func([]Orphan) []Holding {
	known := t.cfg.Keeper != 0
	return func(orphans []Orphan) []Holding {
		var pids []int
		for _, o := range orphans {
			if !o.Foreign && (known || o.Of != 0) {
				pids = append(pids, o.Stat.PID)
			}
		}
		return HoldingsOf(pids, lookTimeout)
	}
}

// HoldingsOf returns what those processes, and what descends from them, have of sockets.
func HoldingsOf(pids []int, timeout time.Duration) (all []Holding) {
	if len(pids) == 0 {
		return nil
	}
	late, m := time.Now().Add(timeout), machineSockets()
	for i := 0; i < len(pids) && i < maxHoldings; i++ {
		s, err := linux.ReadStat(pids[i])
		switch {
		case err != nil || dead(s):
		case time.Now().After(late):
			all = append(all, Holding{PID: s.PID, Start: s.Start, Hidden: true})
		default:
			all = append(all, m.holding(s))
			pids = append(pids, linux.Children(pids[i])...)
		}
	}
	return all
}

// machine has the sockets of this network namespace, by inode.
type machine struct {
	tcp      map[uint64]linux.TCPSocket
	unix     map[uint64]linux.UnixSocket
	accepted func(port uint16) bool // a connection from that local port was accepted
}

func machineSockets() machine {
	m := machine{tcp: map[uint64]linux.TCPSocket{}, unix: linux.UnixSockets()}
	listening := map[uint16]bool{}
	for s := range linux.TCPSockets() {
		if s.Inode != 0 {
			m.tcp[s.Inode] = s
		}
		if s.Listening {
			listening[s.Local] = true
		}
	}
	first, last := linux.EphemeralPorts()
	m.accepted = func(port uint16) bool { return listening[port] || port < first || port > last }
	return m
}

func (m machine) holding(s linux.Stat) Holding {
	h := Holding{PID: s.PID, Start: s.Start, Hidden: !linux.MayListFiles(s.PID)}
	for _, inode := range linux.Sockets(s.PID) {
		if s, ok := m.tcp[inode]; ok && s.Listening {
			h.Listening = append(h.Listening, s.Local)
		} else if ok {
			h.Connections = append(h.Connections, Connection{inode, s.Local, m.accepted(s.Local)})
		}
		if s, ok := m.unix[inode]; ok && s.Listening {
			h.ListensUnix = true
		} else if ok && s.Connected && s.Path != "" { // one that was accepted has its listener's name
			h.Connections = append(h.Connections, Connection{Inode: inode, Accepted: true})
		}
	}
	return h
}

// Serves registers ports that a worker serves on.
func (t *Tracker) Serves(of Worker, ports []uint16) {
	if tr := t.tree(of); tr != nil {
		tr.ports = ports
	}
}

// learn takes what members have of sockets.
func (tr *tree) learn(holdings []Holding) {
	first, last := linux.EphemeralPorts()
	own := func(port uint16) bool { return !slices.Contains(tr.ports, port) && (port < first || port > last) }
	for _, m := range tr.members {
		for _, h := range holdings {
			if h.PID == m.PID && h.Start == m.Start {
				m.serves, m.blocks = tr.serves(m, h), slices.ContainsFunc(h.Listening, own)
				m.listens, m.had = h.ListensUnix || slices.ContainsFunc(h.Listening, tr.isOurs), tr.ours(h)
			}
		}
	}
}

// serves tells whether a process serves connections, and is not the server itself.
func (tr *tree) serves(m *member, h Holding) bool {
	server := slices.ContainsFunc(h.Listening, tr.isOurs) && tr.image != "" && linux.Image(m.PID) != tr.image
	accepted := slices.ContainsFunc(h.Connections, func(c Connection) bool { return c.Accepted || tr.isOurs(c.Port) })
	return (h.Hidden || accepted) && !server
}

func (tr *tree) isOurs(port uint16) bool { return slices.Contains(tr.ports, port) }

// ours are the connections that a process has of its worker's addresses, by inode.
func (tr *tree) ours(h Holding) (inodes []uint64) {
	for _, c := range h.Connections {
		if tr.isOurs(c.Port) || c.Port == 0 {
			inodes = append(inodes, c.Inode)
		}
	}
	return inodes
}

// spare moves those that serve, and what descends from them, into a tree of their own, nil
// if there are none; but for who has a port that the worker's replacement may need.
func (t *Tracker) spare(tr *tree) *tree {
	return t.split(tr, func(m *member) bool { return m.serves && !m.blocks })
}

// split moves members, and what descends from them, into a tree of their own, nil if there
// are none.
func (t *Tracker) split(tr *tree, moves func(*member) bool) *tree {
	moved := map[int]bool{}
	for more := true; more; {
		more = false
		for _, m := range tr.members {
			if !moved[m.PID] && (moves(m) || moved[m.parent]) {
				moved[m.PID], more = true, true
			}
		}
	}
	if len(moved) == 0 {
		return nil
	}
	other := &tree{of: tr.of, leader: tr.leader, image: tr.image, grace: tr.grace, ports: tr.ports}
	tr.members = slices.DeleteFunc(tr.members, func(m *member) bool {
		if moved[m.PID] {
			other.members = append(other.members, m)
			other.saw(m.Group, m.Session)
		}
		return moved[m.PID]
	})
	t.trees = append(t.trees, other)
	return other
}

// finish has the members of a tree go on until then, and those end that nobody may have
// told to: they do not serve, and are not forks in the worker's own group.
func (t *Tracker) finish(tr *tree, by time.Time, s unix.Signal, drained bool) {
	tr.phase, tr.at = waits, by
	t.report(tr, s, "their parent has exited", tr.signal(s, func(m *member) bool { return !m.serves && tr.untold(m) }))
	var serving []Process
	listen := 0
	for _, m := range tr.members {
		if m.serves {
			serving = append(serving, m.Process)
			if m.listens {
				listen++
			}
		}
	}
	if len(serving) > 0 {
		t.notices = append(t.notices, Notice{Of: tr.of, Processes: serving, Until: by, Listen: listen, Drained: drained})
	}
}

// Finishing are processes that finish their connections after their worker has ended.
type Finishing struct {
	Of        Worker
	Processes int
	Until     time.Time
}

// Finishing returns them, by worker.
func (t *Tracker) Finishing() (all []Finishing) {
	for _, tr := range t.trees {
		n := 0
		for _, m := range tr.members {
			if m.serves {
				n++
			}
		}
		if tr.phase == waits && n > 0 {
			all = append(all, Finishing{tr.of, n, tr.at})
		}
	}
	return all
}

// lookInterval is how often those are looked at again that finish connections and have a
// listening socket.
const lookInterval = 2 * time.Second

// Due returns, if it is time, a function for any goroutine that looks again at processes
// that finish connections and have a listening socket, too, for [Tracker.Looked]; else nil.
func (t *Tracker) Due(now time.Time) func() []Holding {
	if t.lookAt.IsZero() || now.Before(t.lookAt) {
		return nil
	}
	t.lookAt = time.Time{} // Looked sets the next one
	pids := t.listening()
	return func() []Holding { return HoldingsOf(pids, lookTimeout) }
}

func (t *Tracker) listening() (pids []int) {
	for _, tr := range t.trees {
		for _, m := range tr.members {
			if tr.phase == waits && m.listens {
				pids = append(pids, m.PID)
			}
		}
	}
	return pids
}

// lookAgain sets when they are looked at, if there are any.
func (t *Tracker) lookAgain(now time.Time) {
	if t.lookAt.IsZero() && len(t.listening()) > 0 {
		t.lookAt = now.Add(lookInterval)
	}
}

// Looked takes what those have of sockets. One that has accepted a connection since its
// worker has ended, from a socket that others have too, ends: it would go on serving what
// was replaced.
func (t *Tracker) Looked(holdings []Holding, now time.Time) {
	for _, tr := range slices.Clone(t.trees) {
		if tr.phase != waits {
			continue
		}
		accepts := func(m *member) bool {
			return m.listens && slices.ContainsFunc(holdings, func(h Holding) bool {
				return h.PID == m.PID && h.Start == m.Start &&
					slices.ContainsFunc(tr.ours(h), func(inode uint64) bool { return !slices.Contains(m.had, inode) })
			})
		}
		if other := t.split(tr, accepts); other != nil {
			t.terminate(other, now, "new connections came to it after its worker has ended")
		}
	}
	t.lookAgain(now)
	t.forget()
}
