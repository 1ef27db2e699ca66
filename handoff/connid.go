package handoff

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// A connection of QUIC belongs to one worker, and outlives both the address of its client
// and the time in which its worker is steered to. So its server says in the connection ids
// that it issues whose they are: two fixed bytes, and the tag of the socket ([Socket.Tag]).
// The steering program looks for them where the client repeats them, before it looks at the
// client's address, and knows the tags of all sockets that a worker has, also of one that is
// steered away from.
//
//	1-RTT                    0x40 set, 0x80 not │ destination connection id …
//	Initial, 0-RTT,          0x80 set │ version, 4 bytes │ its length │ destination
//	Handshake                                                           connection id …
//
// The first packets of a client have an id of its own choice, and go by its address, as do
// those for a worker that is gone. A server that issues other ids is not affected.

// connectionMagic begins no text, and is no flags of a DNS query.
const connectionMagic = 0xc9f1

// ConnectionIDPrefix is how the connection ids of a QUIC server begin whose socket has that
// tag. Random bytes follow: 6 or more.
func ConnectionIDPrefix(tag uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{connectionMagic >> 8, connectionMagic & 0xff}, tag)
}

const (
	shortID = 1 // where the connection id is in a packet with the short header
	longID  = 6 // and the long one
	// A packet of QUIC is longer than this (RFC 9001, section 5.4.2).
	minQUIC = longID + 2 + 4
)

// Tag has the group steer the packets of QUIC whose connection id has that tag to this
// datagram socket, from the next [Group.Steer] to [Socket.Release]. Several sockets of one
// worker may have one tag; then a client's address chooses among them. Zero is none.
func (s *Socket) Tag(tag uint32) { s.tag = tag }

// tags lists the tags of sockets that workers have, with their indexes, by age.
func (g *Group) tags() (tags []uint32, indexes [][]int) {
	order := slices.Clone(g.order)
	slices.SortFunc(order, func(a, b *Socket) int { return cmp.Compare(a.born, b.born) })
	for _, s := range order {
		if s.tag == 0 || s.closed || !s.Held() {
			continue
		}
		i := slices.Index(tags, s.tag)
		if i < 0 {
			i = len(tags)
			tags, indexes = append(tags, s.tag), append(indexes, nil)
		}
		indexes[i] = append(indexes[i], slices.Index(g.order, s))
	}
	return tags, indexes
}

// connectionProgram sends packets of QUIC by the tags of their connection ids, and all else
// as rest does.
func connectionProgram(tags []uint32, indexes [][]int, rest program) program {
	if len(tags) == 0 {
		return rest
	}
	const toRest = 10
	p := program{
		{Code: ldLen},
		{Code: jgeK, Jf: toRest - 2, K: minQUIC},
		{Code: ldBAbs, K: 0},
		{Code: jsetK, Jt: 3, K: 0x80},
		{Code: jsetK, Jf: toRest - 5, K: 0x40},
		{Code: ldxK, K: shortID},
		{Code: ja, K: 1},
		{Code: ldxK, K: longID},
		{Code: ldHInd},
		{Code: jeqK, Jt: 1, K: connectionMagic},
		{Code: ja}, // toRest
		{Code: ldWInd, K: 2},
	}
	var several branches
	for i, tag := range tags {
		p = append(p, unix.SockFilter{Code: jeqK, Jf: 1, K: tag})
		p = several.leave(p, indexes[i])
	}
	end := len(p)
	p = append(p, unix.SockFilter{Code: ja})
	p = several.end(p, func(indexes []int) program { return append(mixed(flowKey()), ofKey(indexes)...) })
	p[end].K = uint32(len(p) - end - 1)
	p[toRest].K = uint32(len(p) - toRest - 1)
	if p = append(p, rest...); len(p) > unix.BPF_MAXINSNS {
		return rest
	}
	return p
}
