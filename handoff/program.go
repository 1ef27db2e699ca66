package handoff

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoSteering says that the kernel refuses a steering program (gVisor, an old
// kernel, a seccomp profile): the group then spreads connections by the
// kernel's own hash.
var ErrNoSteering = errors.New("the kernel refuses SO_ATTACH_REUSEPORT_CBPF")

// Classic BPF opcodes that the programs use, by their names in linux/filter.h.
const (
	ldWAbs   = 0x20
	ldBAbs   = 0x30
	ldMem    = 0x60
	st       = 0x02
	ja       = 0x05
	jeqK     = 0x15
	retK     = 0x06
	retA     = 0x16
	addK     = 0x04
	mulK     = 0x24
	modK     = 0x94
	rshK     = 0x74
	xorX     = 0xac
	tax      = 0x07
	adRandom = 0xfffff038 // SKF_AD_OFF + SKF_AD_RANDOM
	netOff   = 0xfff00000 // SKF_NET_OFF: the packet from its IP header on

	maxInsns = 4096 // BPF_MAXINSNS
)

type program []unix.SockFilter

func (p program) equal(q program) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// randomProgram spreads new connections at random over the given indexes of the
// group. Indexes are written out: never "mod N" over the group, and never an
// index outside it, which the kernel answers with a hash over all sockets.
func randomProgram(indexes []int) program {
	n := len(indexes)
	p := program{{Code: ldWAbs, K: adRandom}, {Code: modK, K: uint32(n)}}
	if n == 1 {
		return program{{Code: retK, K: uint32(indexes[0])}}
	}
	if consecutive(indexes) {
		return append(p, unix.SockFilter{Code: addK, K: uint32(indexes[0])}, unix.SockFilter{Code: retA})
	}
	return append(p, choose(indexes)...)
}

// choose returns indexes[A] for A in [0, len(indexes)).
func choose(indexes []int) program {
	var p program
	last := len(indexes) - 1
	for i, index := range indexes[:last] {
		p = append(p,
			unix.SockFilter{Code: jeqK, Jf: 1, K: uint32(i)},
			unix.SockFilter{Code: retK, K: uint32(index)})
	}
	return append(p, unix.SockFilter{Code: retK, K: uint32(indexes[last])})
}

func consecutive(indexes []int) bool {
	for i := range indexes[1:] {
		if indexes[i+1] != indexes[i]+1 {
			return false
		}
	}
	return true
}

// dark marks a seat of a sticky program that nobody serves: its clients, and
// only they, go to a second choice among the others.
const dark = -1

// stickyProgram sends a client address to the same seat always: IPv4 by the
// whole address, IPv6 by its /64. seats[i] is the group index that serves seat
// i, or dark. The choice among seats is consistent: one seat more moves about
// 1/n of the clients. At least one seat must not be dark.
func stickyProgram(seats []int) program {
	var lit []int
	for _, index := range seats {
		if index != dark {
			lit = append(lit, index)
		}
	}
	p := program{
		{Code: ldBAbs, K: netOff}, // version
		{Code: rshK, K: 4},
		{Code: jeqK, Jt: 2, K: 6},
		{Code: ldWAbs, K: netOff + 12}, // IPv4 source
		{Code: ja, K: 5},
		{Code: ldWAbs, K: netOff + 8}, // IPv6 source, first half
		{Code: mulK, K: 0x01000193},
		{Code: tax},
		{Code: ldWAbs, K: netOff + 12},
		{Code: xorX},
		// Both meet here with the key in A; a finaliser spreads it.
		{Code: tax},
		{Code: rshK, K: 16},
		{Code: xorX},
		{Code: mulK, K: 0x045d9f3b},
		{Code: tax},
		{Code: rshK, K: 16},
		{Code: xorX},
		{Code: mulK, K: 0x045d9f3b},
		{Code: tax},
		{Code: rshK, K: 16},
		{Code: xorX},
		{Code: st, K: 0},
	}
	var toSecond []int // places of the jumps to the second choice
	leave := func(index int) {
		if index != dark {
			p = append(p, unix.SockFilter{Code: retK, K: uint32(index)})
			return
		}
		toSecond = append(toSecond, len(p))
		p = append(p, unix.SockFilter{Code: ja})
	}
	for i := len(seats) - 1; i > 0; i-- {
		// Seat i wins one key in i+1: what a set of i seats had already
		// decided stays as it was.
		p = append(p, remix(seatKey(i))...)
		p = append(p,
			unix.SockFilter{Code: modK, K: uint32(i + 1)},
			unix.SockFilter{Code: jeqK, Jf: 1, K: 0})
		leave(seats[i])
	}
	leave(seats[0])
	if len(toSecond) == 0 {
		return p
	}
	for _, at := range toSecond {
		p[at].K = uint32(len(p) - at - 1)
	}
	p = append(p, remix(0x9e3779b1)...)
	p = append(p, unix.SockFilter{Code: modK, K: uint32(len(lit))})
	return append(p, choose(lit)...)
}

// remix hashes the stored key with a constant of its own.
func remix(key uint32) program {
	return program{
		{Code: ldMem, K: 0},
		{Code: mulK, K: key},
		{Code: tax},
		{Code: rshK, K: 15},
		{Code: xorX},
		{Code: mulK, K: 0x2c1b3c6d},
		{Code: rshK, K: 8},
	}
}

// seatKey is odd and fixed for all time: two masters, old and new, must agree
// where a client goes.
func seatKey(i int) uint32 {
	x := uint64(i) * 0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	return uint32(x>>16) | 1
}

// attach makes p the program of fd's whole group, at once and atomically: each
// SYN sees the old program or the new one.
func attach(fd int, p program) error {
	if len(p) > maxInsns {
		return fmt.Errorf("cannot steer: program of %d instructions, %d are allowed", len(p), maxInsns)
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
		unix.SO_ATTACH_REUSEPORT_CBPF, uintptr(unsafe.Pointer(&prog)), unsafe.Sizeof(prog), 0)
	if errno != 0 {
		return fmt.Errorf("%w (%w)", ErrNoSteering, errno)
	}
	return nil
}
