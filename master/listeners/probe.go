package listeners

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/linux"
)

// Probe is a connection of handoff's own to one worker, whether others are steered to it or
// not. Only Await may be called by another goroutine than the table's.
type Probe struct {
	tcp  *handoff.Probe // nil: of a unix socket
	fd   int            // of a unix socket; -1: it is the caller's
	name string
}

var errNowhere = errors.New("it accepts on no address that handoff holds")

// Probe begins a connection to a worker, at the first of the addresses on which it accepts and
// that at accepts; nil: any, of TCP if there is one. A unix socket belongs to all workers of a
// generation.
func (t *Table) Probe(id Worker, at func(at netip.AddrPort, name string) bool) (*Probe, error) {
	var tcp, path *Lease
	for _, a := range t.list {
		for _, l := range a.leases {
			switch {
			case l.worker != id || !l.listening && !l.atStart || at != nil && !at(a.bound(), a.name) || l.Type() != Stream:
			case a.tcp():
				if tcp == nil {
					tcp = l
				}
			case path == nil && a.group == nil && a.endpoint.Family == Unix:
				path = l
			}
		}
	}
	switch {
	case tcp != nil && tcp.socket == nil:
		return nil, fmt.Errorf("%s: %w", tcp.address.name, handoff.ErrShared)
	case tcp != nil:
		p, err := tcp.address.group.Probe(tcp.socket)
		if err != nil {
			return nil, err
		}
		return &Probe{tcp: p, fd: -1, name: tcp.address.name}, nil
	case path != nil:
		return t.probePath(path)
	}
	return nil, errNowhere
}

// bound is the address to which its sockets are bound; zero: of a path.
func (a *Address) bound() (at netip.AddrPort) {
	if a.group != nil {
		at = a.group.Addr()
	}
	return at
}

func (t *Table) probePath(l *Lease) (*Probe, error) {
	a := l.address
	name, err := a.kind.(*shared).pathTo(a, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// Whatever the name leads to, it is reached with the rights of the workers.
	err = linux.As(t.cfg.User, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: name}) })
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect to "+a.name, err)
	}
	return &Probe{fd: fd, name: a.name}, nil
}

// pathTo is the name by which a worker's socket is reached.
func (s *shared) pathTo(a *Address, l *Lease) (string, error) {
	if s.workers && s.folder >= 0 && l.unix != 0 {
		folder := "/proc/self/fd/" + strconv.Itoa(s.folder) + "/"
		if l.unix == s.inode {
			return folder + s.place.Name, nil
		}
		for _, b := range s.beside {
			if b.inode == l.unix && b.name != "" {
				return folder + b.name, nil
			}
		}
	}
	if slices.ContainsFunc(a.leases, func(o *Lease) bool { return o.worker != l.worker }) {
		return "", handoff.ErrShared
	}
	if name := a.endpoint.Addr; name[0] != 0 {
		return name, nil
	}
	return "@" + a.endpoint.Addr[1:], nil
}

// Name is the name of the address.
func (p *Probe) Name() string { return p.name }

// Await waits until the worker has the connection, see [handoff.Probe.Await].
func (p *Probe) Await(until time.Time) error {
	if p.tcp == nil {
		return nil
	}
	return p.tcp.Await(until)
}

// Detach ends the probe: the connection is the caller's, unless somebody else may have it.
func (p *Probe) Detach() (fd int, err error) {
	if p.tcp == nil {
		fd, p.fd = p.fd, -1
		return fd, nil
	}
	if !p.tcp.Reaches() {
		p.tcp.Close()
		return -1, fmt.Errorf("%s: the connection may have reached another worker: try again", p.name)
	}
	return p.tcp.Detach(), nil
}

// Close ends the probe, and closes the connection.
func (p *Probe) Close() {
	if p.tcp != nil {
		p.tcp.Close()
	} else if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// Open opens a connection to a worker, by [Table.Probe], from any goroutine: inLoop calls its
// argument in the table's own. It has until the deadline of ctx, or 10 seconds.
func Open(ctx context.Context, inLoop func(func(*Table) error) error, find func() (Worker, error), at func(netip.AddrPort, string) bool) (*os.File, error) {
	var p *Probe
	if err := inLoop(func(t *Table) error {
		id, err := find()
		if err == nil {
			p, err = t.Probe(id, at)
		}
		return err
	}); err != nil {
		return nil, err
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(10 * time.Second)
	}
	failed, fd := p.Await(until), -1
	if err := inLoop(func(*Table) (err error) {
		if failed != nil {
			p.Close()
			return failed
		}
		fd, err = p.Detach()
		return err
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return os.NewFile(uintptr(fd), p.name), nil
}

// Avoid names the workers to which no connections should go, unless there are no others: they
// stay targets, and [Table.Steer] applies it. It reports whether they are others than before.
func (t *Table) Avoid(ids []Worker) (changed bool) {
	changed = !slices.Equal(t.avoid, ids)
	t.avoid = slices.Clone(ids)
	return changed
}

// Avoids reports whether connections go to others than this target.
func (t *Table) Avoids(id Worker) bool {
	return slices.Contains(t.avoid, id) && !slices.Contains(t.steered(), id)
}

// steered are the targets to which connections go.
func (t *Table) steered() []Worker {
	left := slices.Clone(t.targets)
	for i, id := range left {
		if slices.Contains(t.avoid, id) {
			left[i] = 0
		}
	}
	if !slices.ContainsFunc(left, func(id Worker) bool { return id != 0 }) {
		return t.targets
	}
	return left
}
