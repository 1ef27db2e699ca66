package takeover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Target is a worker whose connections are taken over.
type Target struct {
	Worker int   // its number, which is never used again
	PID    int   // of its first process
	Others []int // processes that serve for it and may not descend from that one
	// Held are the addresses that it accepts on; Unix, the unix sockets, by their inodes.
	Held  []netip.AddrPort
	Unix  []uint64
	Peers Peers
}

// Peers tells of which clients connections are taken over.
type Peers string

// The values of Peers.
const (
	Local Peers = "local" // that have an address of this machine
	All   Peers = "all"
	Off   Peers = "off" // of none
)

// found is a connection of a worker, before it is taken.
type found struct {
	inode   uint64
	cookie  uint64 // of a TCP connection; 0: it has a path
	holders []holder
}

// holder is a process that has it, and its descriptor there.
type holder struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
}

// find returns the connections that a worker has accepted at addresses that are held. Its
// own, to a database say, have other local addresses, and are not touched.
func find(t Target) ([]*found, error) {
	wanted, err := accepted(t)
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	at := map[uint64]*found{}
	var all []*found
	var refused error
	for _, pid := range processes(t) {
		if !linux.MayListFiles(pid) {
			refused = fmt.Errorf("the descriptors of process %d may not be looked at", pid)
		}
		for fd, inode := range linux.Sockets(pid) {
			cookie, ok := wanted[inode]
			if !ok {
				continue
			}
			f := at[inode]
			if f == nil {
				f = &found{inode: inode, cookie: cookie}
				at[inode], all = f, append(all, f)
			}
			f.holders = append(f.holders, holder{pid, fd})
		}
	}
	if len(all) == 0 {
		return nil, refused
	}
	return all, nil
}

// processes are those of a worker.
func processes(t Target) (pids []int) {
	for _, root := range append([]int{t.PID}, t.Others...) {
		pids = append(pids, root)
		for _, p := range linux.Descendants(root, nil) {
			pids = append(pids, p.PID())
			p.Close()
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// accepted are the established connections of this machine at the addresses, by inode,
// with their cookies.
func accepted(t Target) (map[uint64]uint64, error) {
	wanted := map[uint64]uint64{}
	own, err := ownAddresses()
	if err != nil && t.Peers == Local {
		return nil, err
	}
	var ports []uint16
	for _, at := range t.Held {
		ports = append(ports, at.Port())
	}
	slices.Sort(ports)
	for _, port := range slices.Compact(ports) {
		all, err := connections(port, stateEstablished)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.Inode != 0 && held(t.Held, c.Local) && (t.Peers == All || own(c.Remote.Addr())) {
				wanted[c.Inode] = c.Cookie
			}
		}
	}
	if len(t.Unix) > 0 {
		all := linux.UnixSockets()
		paths := map[string]bool{} // as they were bound
		for _, inode := range t.Unix {
			if s := all[inode]; s.Listening && s.Path != "" {
				paths[s.Path] = true
			}
		}
		for inode, s := range all {
			if s.Connected && paths[s.Path] {
				wanted[inode] = 0
			}
		}
	}
	return wanted, nil
}

// held reports whether a connection with that local address was accepted at one of these.
func held(all []netip.AddrPort, local netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(at netip.AddrPort) bool {
		return at.Port() == local.Port() && (at.Addr().IsUnspecified() || at.Addr().Unmap().WithZone("") == local.Addr())
	})
}

// ownAddresses tells which addresses are of this machine. That one can be bound does not
// tell it (net.ipv4.ip_nonlocal_bind).
func ownAddresses() (own func(netip.Addr) bool, err error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return func(netip.Addr) bool { return false }, fmt.Errorf("cannot list the addresses of this machine: %w", err)
	}
	set := map[netip.Addr]bool{}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			set[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return func(a netip.Addr) bool { return a.IsLoopback() || set[a] }, nil
}

var errSwapped = errors.New("it is another socket now")

// take duplicates a connection, from whichever process still has it. A worker may have put
// another socket in its place since it was found.
func (f *found) take(open func(pid int) (*linux.Pidfd, error)) (fd int, err error) {
	err = errSwapped
	for _, h := range f.holders {
		var p *linux.Pidfd
		if p, err = open(h.PID); err != nil {
			continue
		}
		if fd, err = p.Getfd(h.FD); err != nil {
			continue
		}
		if err = f.check(fd); err == nil {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, err
}

// check reports whether a descriptor is the connection that was found. None of its calls
// takes the socket's lock, which a worker may hold for as long as it likes.
func (f *found) check(fd int) error {
	if f.cookie != 0 {
		if cookie, err := cookieOf(fd); err != nil || cookie != f.cookie {
			return errSwapped
		}
		return nil
	}
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil || s.Ino != f.inode || s.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errSwapped
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return errSwapped
	}
	// The request would come from this user.
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || int(peer.Uid) != os.Geteuid() || int(peer.Gid) != os.Getegid() {
		return errors.New("its client is another user")
	}
	return nil
}
