package master

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
	"handoff/master/snapshot"
)

// Keeper and master may both be killed. Workers under the bind or the activation
// contract serve on (Node's cluster workers end with their channel). A later start
// finds them by their environment, takes their listening sockets by pidfd_getfd(2)
// where it may (root, or the same user where Yama allows it), and makes of what it
// sees the record that the master before would have left. Then it reloads: they are
// drained when new workers serve. What it cannot know is the order in which the
// kernel has their sockets: until the reload one of them that dies may be steered
// away wrongly.

// orphan is a worker without keeper and master.
type orphan struct {
	process       *linux.Pidfd
	id, slot, gen int
	sockets       []int
}

// serviceVariable says to which service a worker belongs.
const serviceVariable = "HANDOFF_SERVICE"

// service tells this one from others: programs of the same name may run in several
// folders.
func (m *Master) service() string { return m.cfg.Name + "@" + m.cfg.Command.Dir }

// recover returns a record of such workers, and what belongs to it.
func (m *Master) recover() (r snapshot.Record, s stored, found bool) {
	if m.cfg.Contract == NodeContract || m.cfg.Name == "" {
		return r, nil, false
	}
	var orphans []*orphan
	for patience := time.Now().Add(endingPatience); ; time.Sleep(endingPatience / 20) {
		all, attended := m.findOrphans(orphans)
		if orphans = all; attended == 0 || time.Now().After(patience) {
			break
		}
	}
	if len(orphans) == 0 {
		return r, nil, false
	}
	s = stored{}
	r = m.recordOf(orphans, s)
	return r, s, true
}

// endingPatience is how long somebody who was killed may take to close what he
// had: a worker that still seems to be looked after is looked at again. (It may
// be of another handoff of the same name.)
const endingPatience = 300 * time.Millisecond

// findOrphans adds to those that are known, and counts the workers of the service
// whose handoff lives.
func (m *Master) findOrphans(known []*orphan) (all []*orphan, attended int) {
	for _, pid := range linux.PIDs() {
		if slices.ContainsFunc(known, func(o *orphan) bool { return o.process.PID() == pid }) {
			continue
		}
		o, err := findOrphan(pid, m.service())
		switch {
		case errors.Is(err, errAttended):
			attended++
		case err != nil:
			m.log.Warn("A worker that has outlived its handoff cannot be taken over: "+err.Error(), "event", "worker.lost", "pid", pid)
		case o != nil:
			known = append(known, o)
		}
	}
	return known, attended
}

var errAttended = errors.New("its handoff lives")

// findOrphan looks whether a process is a worker of the service whose handoff is
// gone.
func findOrphan(pid int, service string) (*orphan, error) {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid), &st) != nil || int(st.Uid) != os.Geteuid() {
		return nil, nil
	}
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != pid {
		return nil, nil // not a leader
	}
	leader, err := linux.OpenPidfd(pid)
	if err != nil {
		return nil, nil
	}
	env := linux.Environ(pid)
	o := &orphan{process: leader}
	var errs [3]error
	o.id, errs[0] = strconv.Atoi(linux.Lookup(env, "HANDOFF_WORKER"))
	o.slot, errs[1] = strconv.Atoi(linux.Lookup(env, "WORKER_ID"))
	o.gen, errs[2] = strconv.Atoi(linux.Lookup(env, "HANDOFF_GENERATION"))
	if errors.Join(errs[:]...) != nil || linux.Lookup(env, serviceVariable) != service || o.id < 1 || o.gen < 1 || o.slot < 0 || o.slot > 1<<12 {
		leader.Close()
		return nil, nil
	}
	// Somebody listens there as long as keeper or master live.
	if c, err := cmsg.Dial(linux.Lookup(env, "NOTIFY_SOCKET")); err == nil {
		c.Close()
		leader.Close()
		return nil, errAttended
	}
	if o.sockets, err = socketsOf(leader, 8); err != nil || leader.Signal(0) != nil {
		closeAll(o.sockets)
		leader.Close()
		return nil, err
	}
	return o, nil
}

// socketsOf duplicates the listening TCP sockets of a process and of what it has
// started, down to some depth.
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

// recordOf is the record of workers that nobody has left one of.
func (m *Master) recordOf(orphans []*orphan, s stored) snapshot.Record {
	now := time.Now()
	r := snapshot.Record{Version: snapshot.Version, Began: now, Reload: true}
	last := slices.MaxFunc(orphans, func(a, b *orphan) int { return cmp.Or(a.gen-b.gen, a.id-b.id) })
	live := fleet.Gen(last.gen)
	r.Reported = live
	r.Fleet = fleet.State{Slots: m.cfg.Fleet.Slots, LastGen: live, Live: live, Wanted: live, Known: []fleet.Gen{live}, Began: now, Proven: true}
	pid := last.process.PID()
	r.Generations = []snapshot.Generation{{Gen: live, Path: snapshot.Text(linux.Image(pid)), Dir: snapshot.Text(linux.Directory(pid)),
		Args: snapshot.Texts(linux.Arguments(pid)), Env: snapshot.Texts(WorkerEnviron(linux.Environ(pid)))}}
	targets := map[int]fleet.ID{}
	addresses := map[netip.AddrPort]*listeners.AddressState{}
	slices.SortFunc(orphans, func(a, b *orphan) int { return b.id - a.id }) // the newest of a slot serves
	for _, o := range orphans {
		id := fleet.ID(o.id)
		r.Fleet.LastID = max(r.Fleet.LastID, id)
		w := fleet.WorkerState{ID: id, Slot: o.slot, Gen: live, Phase: fleet.Serving, InService: true, Started: now, ReadyAt: now}
		if targets[o.slot] != 0 || o.gen != last.gen || o.slot >= r.Fleet.Slots {
			w.Phase = fleet.Quieting // it may be draining already; it is told once more
		} else {
			targets[o.slot] = id
		}
		r.Fleet.Workers = append(r.Fleet.Workers, w)
		r.Workers = append(r.Workers, snapshot.Worker{ID: id, Slot: o.slot, Gen: live, PID: o.process.PID(), Began: now})
		if fd, err := o.process.Duplicate(); err == nil {
			s[fdstore.WorkerName(int(id), fdstore.PID)] = fd
		}
		o.process.Close()
		for _, fd := range o.sockets {
			m.recoverSocket(addresses, s, id, o.slot, fd)
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
	for _, l := range m.cfg.Listen {
		key := ""
		for i := range r.Addresses {
			if a := &r.Addresses[i]; l.Path == "" && a.Bound == l.Addr {
				key, a.Preopened, a.Any = a.Key, true, l.Any
			}
		}
		r.Preopened = append(r.Preopened, key)
	}
	return r
}

// recoverSocket puts a worker's socket, which it takes over, in the record.
func (m *Master) recoverSocket(addresses map[netip.AddrPort]*listeners.AddressState, s stored, id fleet.ID, slot, fd int) {
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
	if !m.cfg.Hold(at) {
		unix.Close(fd)
		return
	}
	a := addresses[at]
	if a == nil {
		a = &listeners.AddressState{Name: at.String(), Bound: at, Steerable: true, Balance: m.cfg.Balance.String()}
		a.SetEndpoint(listeners.TCP(at, only))
		addresses[at] = a
	}
	if _, twice := s[listeners.SocketName(st.Ino)]; twice {
		unix.Close(fd)
	} else {
		s[listeners.SocketName(st.Ino)] = fd
		a.Sockets = append(a.Sockets, listeners.SocketState{Inode: st.Ino, Slot: slot, Own: true})
	}
	if !slices.ContainsFunc(a.Leases, func(l listeners.LeaseState) bool { return l.Worker == listeners.Worker(id) && l.Inode == st.Ino }) {
		a.Leases = append(a.Leases, listeners.LeaseState{Worker: listeners.Worker(id), Slot: slot, Inode: st.Ino, Listening: true})
	}
}
