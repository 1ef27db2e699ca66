package listeners

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"handoff/handoff"
)

// shared is one socket for all workers: a unix path, or UDP.
type shared struct {
	store Store
	key   string // of its address
	fd    int
	typ   Type
	label string
	path  string // to remove at the end; "": there is none
	file  fileID // what the path was when it was made
}

type fileID struct{ dev, ino uint64 }

func (s *shared) name() string { return s.label }

func (s *shared) take(int) (*handoff.Socket, int, error) { return nil, s.fd, nil }

func (s *shared) kept(each func(string, int)) { each(sharedName(s.key), s.fd) }

func sharedName(key string) string { return "x" + key }

// The record has the type of a shared socket by the names that the first version gave
// them, which are libuv's.
const (
	recordStream   = "net.Native"
	recordDatagram = "dgram.Native"
)

func (s *shared) state(r *AddressState) {
	r.Shared = &SharedState{Kind: recordStream, Path: s.path, Dev: s.file.dev, Ino: s.file.ino}
	if s.typ == Datagram {
		r.Shared.Kind = recordDatagram
	}
}

func (s *shared) close() {
	s.store.Remove(sharedName(s.key))
	unix.Close(s.fd)
	if s.path != "" {
		// Somebody may have put another socket in its place.
		if f, ok := fileOf(s.path); ok && f == s.file {
			os.Remove(s.path)
		}
	}
}

func (t *Table) newShared(s shared) *shared {
	s.store = t.cfg.Store
	s.store.Store(sharedName(s.key), s.fd)
	return &s
}

func (t *Table) restoreShared(r AddressState, e Endpoint, fd func(string) int) (kind, error) {
	n := fd(sharedName(r.Key))
	if n < 0 {
		return nil, fmt.Errorf("cannot take over %s: its socket was not stored", r.Name)
	}
	return &shared{store: t.cfg.Store, key: r.Key, fd: n, typ: e.Type, label: r.Name, path: r.Shared.Path,
		file: fileID{r.Shared.Dev, r.Shared.Ino}}, nil
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
	return t.newShared(shared{key: key, fd: fd, typ: Datagram, label: "udp " + at.String()}), nil
}

func (t *Table) openUnix(e Endpoint, key string, own func() error) (kind, error) {
	if fd := t.passedWhere(func(p *passed) bool { return p.path != "" && p.path == e.Addr }); fd >= 0 {
		return t.newShared(shared{key: key, fd: fd, label: e.Addr}), nil
	}
	fd, err := bindUnix(e.Addr, own)
	if err != nil {
		return nil, err
	}
	s := shared{key: key, fd: fd, label: e.Addr}
	if path := e.Addr; path != "" && path[0] != 0 && path[0] != '@' {
		s.path = path
		s.file, _ = fileOf(path)
	}
	return t.newShared(s), nil
}

// bindUnix listens on a path, which it takes over if nobody answers there: the
// socket of a server that was killed.
func bindUnix(path string, own func() error) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	sa := &unix.SockaddrUnix{Name: path}
	err = unix.Bind(fd, sa)
	if err == unix.EADDRINUSE && stale(path) {
		os.Remove(path)
		err = unix.Bind(fd, sa)
	}
	bound := err == nil
	if bound && own != nil {
		err = own()
	}
	if err == nil {
		err = unix.Listen(fd, -1)
	}
	if err != nil {
		unix.Close(fd)
		if bound {
			os.Remove(path)
		}
		return -1, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return fd, nil
}

// stale tells whether a path is a socket at which nobody listens.
func stale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == unix.ECONNREFUSED
}

func fileOf(path string) (fileID, bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true
}
