package handoff

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Member is a socket of a group that an earlier owner has made.
type Member struct {
	FD      int
	Slot    int
	Own     bool // its O_NONBLOCK is as its holder wants it
	Holders int  // workers that have a duplicate
}

// Restore makes a group of the sockets of an earlier owner, in the kernel's
// order. It changes nothing in the kernel: what the earlier owner has steered to
// last is steered to until [Group.Steer]. steerable is what its Steerable was. The
// group owns the descriptors, also when it returns an error.
func Restore(cfg Config, members []Member, steerable bool) (*Group, []*Socket, error) {
	g := &Group{cfg: cfg, addr: cfg.Addr, hash: !steerable}
	fail := func(err error) (*Group, []*Socket, error) {
		for _, m := range members {
			unix.Close(m.FD)
		}
		return nil, nil, fmt.Errorf("cannot take over %v: %w", cfg.Addr, err)
	}
	if len(members) == 0 {
		return fail(unix.ENOENT)
	}
	var sockets []*Socket
	for _, m := range members {
		at, err := bound(m.FD)
		if err != nil {
			return fail(err)
		}
		if at.Port() != cfg.Addr.Port() {
			return fail(fmt.Errorf("descriptor %d is bound to %v", m.FD, at))
		}
		sockets = append(sockets, &Socket{fd: m.FD, slot: m.Slot, own: m.Own, holders: m.Holders})
	}
	for i, s := range sockets {
		if err := cfg.Watch.add(s); err != nil {
			for _, s := range sockets[:i] {
				cfg.Watch.remove(s)
			}
			return fail(err)
		}
	}
	g.order = sockets
	_, g.backlog, _ = sockets[0].queue()
	return g, sockets, nil
}

// Slot is the slot that the socket was given to last.
func (s *Socket) Slot() int { return s.slot }

// Owned tells whether Own was said of it.
func (s *Socket) Owned() bool { return s.own }

// Holders is how many workers have a duplicate.
func (s *Socket) Holders() int { return s.holders }
