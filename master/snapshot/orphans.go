package snapshot

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// Search finds the workers of a service whose keeper and master were both killed, and
// reconstructs the record that the master would have left.
//
// Workers under the bind or the activation contract then keep serving (Node's cluster
// workers end with their channel). The next start finds them by their file, or its own
// user's by their environment, and duplicates their listening sockets with
// pidfd_getfd(2), if permitted (root, or the same user if Yama allows it). Then it
// reloads: they are drained when new workers serve. The kernel's order of their sockets
// is unknown: if one of them dies before that reload, connections may be steered wrongly.
type Search struct {
	Service string // in their environment, see ServiceVariable
	Slots   int
	Balance string
	Holds   func(netip.AddrPort) bool        // whether a socket of theirs is held
	Environ func(env []string) (of []string) // removes handoff's own variables from an environment
	Listen  []listeners.Listen               // addresses that are opened before workers start
	Warn    func(pid int, err error)         // reports a worker that cannot be taken over
	File    *WorkersFile                     // nil: none
}

// orphan is a worker without keeper and master.
type orphan struct {
	process       *linux.Pidfd
	id, slot, gen int
	env           []string // that it was started with; nil: it has overwritten it
	sockets       []int
}

// ServiceVariable identifies, in a worker's environment, its service.
const ServiceVariable = "HANDOFF_SERVICE"

// Find returns a record of such workers, and its descriptors, which the caller owns. It
// blocks for up to 300 ms while a handoff still seems to supervise them.
func (s Search) Find() (r Record, d Descriptors, found bool) {
	var orphans []*orphan
	file := s.File.Found()
	for end := time.Now().Add(endingTimeout); ; time.Sleep(endingTimeout / 20) {
		all, attended := s.look(orphans, file)
		if orphans = all; attended == 0 || time.Now().After(end) {
			break
		}
	}
	if len(orphans) == 0 {
		return r, nil, false
	}
	d = Descriptors{}
	return s.record(orphans, d), d, true
}

// endingTimeout is how long a killed process may take to close its descriptors: a worker
// that still seems to be supervised is checked again. (It may belong to another handoff
// of the same name.)
const endingTimeout = 300 * time.Millisecond

// look adds orphans, and counts the workers of the service whose handoff is alive.
func (s Search) look(known []*orphan, file map[int]Identity) (all []*orphan, attended int) {
	for _, pid := range linux.PIDs() {
		if slices.ContainsFunc(known, func(o *orphan) bool { return o.process.PID() == pid }) {
			continue
		}
		o, err := s.orphan(pid, file)
		switch {
		case errors.Is(err, errAttended):
			attended++
		case err != nil:
			s.Warn(pid, err)
		case o != nil:
			known = append(known, o)
		}
	}
	return known, attended
}

var errAttended = errors.New("its handoff is still running")

// orphan checks whether a process is a worker of the service whose handoff has died. The
// file is trusted for any process; an environment only for group leaders of this user.
func (s Search) orphan(pid int, file map[int]Identity) (*orphan, error) {
	i, recorded := file[pid]
	if !recorded && !leads(pid) {
		return nil, nil
	}
	leader, err := linux.OpenPidfd(pid)
	if err != nil {
		return nil, nil
	}
	o := &orphan{process: leader}
	if env := linux.Environ(pid); linux.Lookup(env, ServiceVariable) == s.Service {
		o.env = env
	}
	if !recorded || !i.is(leader) {
		i = Identity{}
		if leads(pid) {
			i = byEnviron(o.env)
		}
	}
	if i.ID < 1 || i.Gen < 1 || i.Slot < 0 || i.Slot > 1<<12 {
		leader.Close()
		return nil, nil
	}
	o.id, o.slot, o.gen = int(i.ID), i.Slot, int(i.Gen)
	// The keeper or the master listens there while it lives.
	if c, err := cmsg.Dial(i.Notify); err == nil {
		c.Close()
		leader.Close()
		return nil, errAttended
	}
	if o.sockets, err = socketsOf(leader, 8); err != nil || leader.Signal(0) != nil {
		for _, fd := range o.sockets {
			unix.Close(fd)
		}
		leader.Close()
		return nil, err
	}
	return o, nil
}

// leads reports whether a process belongs to this user and leads a process group.
func leads(pid int) bool {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid), &st) != nil || int(st.Uid) != os.Geteuid() {
		return false
	}
	pgid, err := unix.Getpgid(pid)
	return err == nil && pgid == pid
}

// byEnviron returns a worker's identity from its environment, without a start time; the
// zero value if it is incomplete.
func byEnviron(env []string) Identity {
	id, err1 := strconv.Atoi(linux.Lookup(env, "HANDOFF_WORKER"))
	slot, err2 := strconv.Atoi(linux.Lookup(env, "WORKER_ID"))
	gen, err3 := strconv.Atoi(linux.Lookup(env, "HANDOFF_GENERATION"))
	if errors.Join(err1, err2, err3) != nil {
		return Identity{}
	}
	return Identity{ID: fleet.ID(id), Slot: slot, Gen: fleet.Gen(gen), Notify: linux.Lookup(env, "NOTIFY_SOCKET")}
}

// socketsOf duplicates the listening TCP sockets of a process and its descendants, down
// to some depth.
func socketsOf(of *linux.Pidfd, depth int) (found []int, err error) {
	for n := range linux.Sockets(of.PID()) {
		fd, gerr := of.Getfd(n)
		if gerr != nil {
			err = errors.Join(err, gerr)
			continue
		}
		listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if listens != 1 || domain != unix.AF_INET && domain != unix.AF_INET6 {
			unix.Close(fd)
			continue
		}
		found = append(found, fd)
	}
	if depth == 0 {
		return found, err
	}
	for _, pid := range linux.Children(of.PID()) {
		child, cerr := linux.OpenPidfd(pid)
		if cerr != nil {
			continue
		}
		more, merr := socketsOf(child, depth-1)
		child.Close()
		found, err = append(found, more...), errors.Join(err, merr)
	}
	return found, err
}

// record reconstructs the record of the workers.
func (s Search) record(orphans []*orphan, d Descriptors) Record {
	now := time.Now()
	r := Record{Version: Version, Began: now, Reload: true}
	last := slices.MaxFunc(orphans, func(a, b *orphan) int { return cmp.Or(a.gen-b.gen, a.id-b.id) })
	live := fleet.Gen(last.gen)
	r.Reported = live
	r.Fleet = fleet.State{Slots: s.Slots, LastGen: live, Live: live, Wanted: live, Known: []fleet.Gen{live}, Began: now, Proven: true}
	// Who has overwritten its environment has overwritten its arguments, too: the master
	// resolves its command again for that generation.
	if i := slices.IndexFunc(orphans, func(o *orphan) bool { return o.gen == last.gen && o.env != nil }); i >= 0 {
		pid := orphans[i].process.PID()
		r.Generations = []Generation{{Gen: live, Path: Text(linux.Image(pid)), Dir: Text(linux.Directory(pid)),
			Args: Texts(linux.Arguments(pid)), Env: Texts(s.Environ(orphans[i].env))}}
	}
	targets := map[int]fleet.ID{}
	addresses := map[netip.AddrPort]*listeners.AddressState{}
	slices.SortFunc(orphans, func(a, b *orphan) int { return b.id - a.id }) // the newest worker of a slot serves
	for _, o := range orphans {
		id := fleet.ID(o.id)
		r.Fleet.LastID = max(r.Fleet.LastID, id)
		w := fleet.WorkerState{ID: id, Slot: o.slot, Gen: live, Phase: fleet.Serving, InService: true, Started: now, ReadyAt: now}
		if targets[o.slot] != 0 || o.gen != last.gen || o.slot >= r.Fleet.Slots {
			w.Phase = fleet.Quieting // it may be draining already; it is told again
		} else {
			targets[o.slot] = id
		}
		r.Fleet.Workers = append(r.Fleet.Workers, w)
		r.Workers = append(r.Workers, Worker{ID: id, Slot: o.slot, Gen: live, PID: o.process.PID(), Began: now})
		if fd, err := o.process.Duplicate(); err == nil {
			d[fdstore.WorkerName(int(id), fdstore.PID)] = fd
		}
		o.process.Close()
		for _, fd := range o.sockets {
			s.socket(addresses, d, id, o.slot, fd)
		}
	}
	for slot := range r.Fleet.Slots {
		r.Targets = append(r.Targets, listeners.Worker(targets[slot]))
		if targets[slot] != 0 {
			r.Fleet.Steered = append(r.Fleet.Steered, targets[slot])
		}
	}
	for i, at := range slices.SortedFunc(maps.Keys(addresses), netip.AddrPort.Compare) {
		a := addresses[at]
		a.Key = strconv.Itoa(i + 1)
		slices.SortFunc(a.Sockets, func(a, b listeners.SocketState) int { return cmp.Compare(a.Inode, b.Inode) })
		r.Addresses = append(r.Addresses, *a)
	}
	r.LastKey = len(r.Addresses)
	for _, l := range s.Listen {
		key := ""
		for i := range r.Addresses {
			if a := &r.Addresses[i]; l.Path == "" && l.Type == listeners.Stream && a.Bound == l.Addr {
				key, a.Preopened, a.Any = a.Key, true, l.Any
			}
		}
		r.Preopened = append(r.Preopened, key)
	}
	return r
}

// socket adds a worker's socket to the record, and owns it.
func (s Search) socket(addresses map[netip.AddrPort]*listeners.AddressState, d Descriptors, id fleet.ID, slot, fd int) {
	sa, err := unix.Getsockname(fd)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return
	}
	var at netip.AddrPort
	only := false
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		n, _ := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		at, only = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), n == 1
	}
	if !s.Holds(at) {
		unix.Close(fd)
		return
	}
	a := addresses[at]
	if a == nil {
		a = &listeners.AddressState{Name: at.String(), Bound: at, Steerable: true, Balance: s.Balance}
		a.SetEndpoint(listeners.TCP(at, only))
		addresses[at] = a
	}
	if _, twice := d[listeners.SocketName(st.Ino)]; twice {
		unix.Close(fd)
	} else {
		d[listeners.SocketName(st.Ino)] = fd
		a.Sockets = append(a.Sockets, listeners.SocketState{Inode: st.Ino, Slot: slot, Own: true})
	}
	if !slices.ContainsFunc(a.Leases, func(l listeners.LeaseState) bool { return l.Worker == listeners.Worker(id) && l.Inode == st.Ino }) {
		a.Leases = append(a.Leases, listeners.LeaseState{Worker: listeners.Worker(id), Slot: slot, Inode: st.Ino, Listening: true})
	}
}
