package listeners

import (
	"handoff/handoff"
)

// Type is the type of a socket. A new one needs a line in kinds, and in openKind.
type Type int

// The types.
const (
	Stream Type = iota
	Datagram
	SeqPacket // of unix sockets
)

// kinds are the endpoints in a record, by AddressState.Kind.
var kinds = [...]struct {
	family Family
	typ    Type
}{{IPv4, Stream}, {IPv6, Stream}, {Unix, Stream}, {IPv4, Datagram}, {IPv6, Datagram}, {Unix, SeqPacket}, {IPv4, Datagram}, {IPv6, Datagram}}

// steeredUDP is the number of the first of the two kinds of UDP that are groups.
const steeredUDP = 6

// kind has the sockets of an address. A new one is a type with these methods, and a line
// each in openKind and restoreKind:
//
//	group   TCP, and UDP that programs bind: a socket for each worker, steered to by the kernel
//	shared  a unix path, or UDP that the Node contract asks for: one socket for all workers
type kind interface {
	// name is its name for people.
	name() string
	// take returns a socket for a worker of a slot, and its descriptor; nil, and the
	// descriptor, if all have the same.
	take(slot int) (*handoff.Socket, int, error)
	// kept calls each for each descriptor that the next master needs, with its name in
	// the store.
	kept(each func(name string, fd int))
	// state adds the state for restoreKind.
	state(*AddressState)
	// close closes the sockets.
	close()
}

// openKind opens the sockets of an endpoint. made says how a new file is; nil: a worker
// asks for the endpoint.
func (t *Table) openKind(e Endpoint, key string, made *pathMode) (kind, error) {
	if made == nil {
		if err := t.permits(e); err != nil {
			return nil, err
		}
	}
	if t.cfg.Private {
		e = privateOf(e)
	}
	switch {
	case e.Family == Unix:
		return t.openUnix(e, key, made)
	case e.Type == Datagram:
		return t.openUDP(e, key)
	default:
		return t.openTCP(e)
	}
}

// restoreKind restores the sockets of an address from the state of a previous master; fd
// returns the descriptor stored by a name, -1 if there is none.
func (t *Table) restoreKind(s AddressState, e Endpoint, fd func(name string) int) (kind, error) {
	if s.Shared != nil {
		return t.restoreShared(s, e, fd)
	}
	return t.restoreGroup(s, e, fd)
}
