package listeners

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/linux"
)

// shared is one socket for all workers: a unix path, or UDP.
type shared struct {
	store Store
	key   string // of its address
	fd    int
	typ   Type
	label string
	path  string // to remove at the end; "": there is none
	file  FileID // the file at the path when it was created
	place Place  // of a unix socket
	// A worker has made the file, which is its to remove; unlinked: the last one meant to.
	workers, unlinked bool
	second            bool   // the file has a second name
	inode             uint64 // of the socket, of a unix one
	// Of a path that a worker has made: the generation of the socket, how the file was made,
	// and the folder (-1: one socket for all); and the sockets of other generations.
	gen    int
	made   Access
	folder int
	beside []beside
}

func (s *shared) name() string { return s.label }

func (s *shared) take(int) (*handoff.Socket, int, error) { return nil, s.fd, nil }

func (s *shared) kept(each func(string, int)) {
	each(sharedName(s.key), s.fd)
	if s.folder >= 0 {
		each(folderName(s.key), s.folder)
	}
	for _, b := range s.beside {
		each(besideName(s.key, b.inode), b.fd)
	}
}

func sharedName(key string) string { return "x" + key }

// The record has the type of a shared socket by the names that the first version gave
// them, which are libuv's.
const (
	recordStream   = "net.Native"
	recordDatagram = "dgram.Native"
	recordPacket   = "seqpacket"
)

func (s *shared) state(r *AddressState) {
	r.Shared = &SharedState{Kind: recordStream, Path: s.path, Dev: s.file.Dev, Ino: s.file.Ino, Place: s.place, Second: s.second, Workers: s.workers, Unlinked: s.unlinked,
		Gen: s.gen, Made: s.made, Folder: s.folder >= 0, Beside: s.besideState()}
	switch s.typ {
	case Datagram:
		r.Shared.Kind = recordDatagram
	case SeqPacket:
		r.Shared.Kind = recordPacket
	}
}

func (s *shared) close() {
	s.store.Remove(sharedName(s.key))
	unix.Close(s.fd)
	if s.path != "" && !s.workers {
		removeSocket(s.path, s.file)
		if s.second {
			removeSocket(secondName(s.path), s.file)
		}
	}
}

// mend puts the file of a unix socket back that a worker has removed.
func (s *shared) mend(user *linux.User) {
	if s.second {
		linux.As(user, func() error { putBack(s.path, s.file); return nil })
	}
}

func (t *Table) newShared(s shared) *shared {
	s.store = t.cfg.Store
	s.store.Store(sharedName(s.key), s.fd)
	if s.folder >= 0 {
		s.store.Store(folderName(s.key), s.folder)
	}
	return &s
}

func (t *Table) restoreShared(r AddressState, e Endpoint, fd func(string) int) (kind, error) {
	n := fd(sharedName(r.Key))
	if n < 0 {
		left := []string{folderName(r.Key)}
		for _, b := range r.Shared.Beside {
			left = append(left, besideName(r.Key, b.Inode))
		}
		for _, name := range left {
			if n := fd(name); n >= 0 {
				unix.Close(n)
				t.cfg.Store.Remove(name)
			}
		}
		return nil, fmt.Errorf("cannot take over %s: its socket was not stored", r.Name)
	}
	s := &shared{store: t.cfg.Store, key: r.Key, fd: n, typ: e.Type, label: r.Name, path: r.Shared.Path,
		file: FileID{r.Shared.Dev, r.Shared.Ino}, place: r.Shared.Place, second: r.Shared.Second, workers: r.Shared.Workers, unlinked: r.Shared.Unlinked, folder: -1}
	if e.Family == Unix {
		s.inode = inodeOf(n)
		if s.place == (Place{}) && s.path != "" { // of a record without
			s.place = placeOf(s.path)
		}
		s.restoreBeside(r.Shared, fd)
	}
	return s, nil
}

func (t *Table) openUDP(e Endpoint, key string) (kind, error) {
	addr := netip.IPv4Unspecified()
	if e.Family == IPv6 {
		addr = netip.IPv6Unspecified()
	}
	if !e.Any {
		var err error
		if addr, err = netip.ParseAddr(e.Addr); err != nil || addr.Is6() != (e.Family == IPv6) {
			return nil, unix.EINVAL
		}
	}
	if e.Port < 0 || e.Port > 65535 {
		return nil, unix.EINVAL
	}
	fd, at, err := handoff.BindUDP(netip.AddrPortFrom(addr, uint16(e.Port)), e.V6Only)
	if err != nil {
		return nil, err
	}
	return t.newShared(shared{key: key, fd: fd, typ: Datagram, label: "udp " + at.String(), folder: -1}), nil
}

func (t *Table) openUnix(e Endpoint, key string, made *pathMode) (kind, error) {
	if fd := t.inheritedWhere(func(p *inherited) bool { return p.path != "" && p.path == e.Addr }); fd >= 0 {
		return t.newShared(shared{key: key, fd: fd, label: e.Addr, typ: e.Type, inode: inodeOf(fd), folder: -1}), nil
	}
	user := t.cfg.User
	if made != nil { // whoever runs handoff asks, not a worker
		user = nil
	}
	fd, file, err := bindUnix(e.Addr, made, user)
	if err != nil {
		return nil, err
	}
	s := shared{key: key, fd: fd, label: e.Addr, typ: e.Type, inode: inodeOf(fd), folder: -1}
	if file != (FileID{}) {
		s.path, s.file, s.place = e.Addr, file, placeOf(e.Addr)
		if s.second = made == nil; s.second {
			linux.As(user, func() error { linkSecond(s.path); return nil })
		}
	}
	if made != nil {
		s.openFolder()
	}
	return t.newShared(s), nil
}
