package handoff

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoSteering means that the kernel does not support the steering program (gVisor, an
// old kernel, a seccomp profile). The kernel's hash then distributes the connections of
// the group.
var ErrNoSteering = errors.New("the kernel refuses SO_ATTACH_REUSEPORT_CBPF")

// The instructions that the programs use. (golang.org/x/net/bpf has types for them, but
// adds 65 kB to a binary; a test compares.)
const (
	ldWAbs = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	ldBAbs = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	ldHAbs = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	ldHInd = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
	ldWInd = unix.BPF_LD | unix.BPF_W | unix.BPF_IND
	ldLen  = unix.BPF_LD | unix.BPF_W | unix.BPF_LEN
	ldxK   = unix.BPF_LDX | unix.BPF_IMM
	andK   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	lshK   = unix.BPF_ALU | unix.BPF_LSH | unix.BPF_K
	ldMem  = unix.BPF_LD | unix.BPF_MEM
	st     = unix.BPF_ST
	ja     = unix.BPF_JMP | unix.BPF_JA
	jeqK   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jgeK   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	jsetK  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	retK   = unix.BPF_RET | unix.BPF_K
	retA   = unix.BPF_RET | unix.BPF_A
	addK   = unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K
	mulK   = unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K
	modK   = unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K
	rshK   = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	xorX   = unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X
	tax    = unix.BPF_MISC | unix.BPF_TAX

	adRandom = 0xfffff038 // SKF_AD_OFF + SKF_AD_RANDOM
	netOff   = 0xfff00000 // SKF_NET_OFF: the packet, starting at its IP header
)

type program []unix.SockFilter

func (p program) equal(q program) bool { return slices.Equal(p, q) }

// randomProgram distributes new connections at random over slots, and those of a slot
// over its sockets: indexes of the group. It lists the indexes: "mod N" over the group
// would include others, and for an index outside the group the kernel falls back to a hash
// over all sockets.
func randomProgram(slots [][]int) program {
	slots = slices.DeleteFunc(slices.Clone(slots), func(s []int) bool { return len(s) == 0 })
	if !slices.ContainsFunc(slots, func(s []int) bool { return len(s) > 1 }) {
		served := slices.Concat(slots...)
		slices.Sort(served)
		return randomOf(served)
	}
	p := program{{Code: ldWAbs, K: adRandom}, {Code: modK, K: uint32(len(slots))}}
	var several branches
	for i, s := range slots {
		p = append(p, unix.SockFilter{Code: jeqK, Jf: 1, K: uint32(i)})
		p = several.leave(p, s)
	}
	return several.end(p, randomOf)
}

// branches are jumps to what chooses among the sockets of one slot.
type branches []struct {
	at      int // of the jump
	indexes []int
}

// leave returns the index, or jumps to where one of them is chosen: one instruction.
func (b *branches) leave(p program, indexes []int) program {
	if len(indexes) == 1 {
		return append(p, unix.SockFilter{Code: retK, K: uint32(indexes[0])})
	}
	*b = append(*b, struct {
		at      int
		indexes []int
	}{len(p), indexes})
	return append(p, unix.SockFilter{Code: ja})
}

// end appends what the jumps lead to.
func (b branches) end(p program, within func([]int) program) program {
	for _, jump := range b {
		p[jump.at].K = uint32(len(p) - jump.at - 1)
		p = append(p, within(jump.indexes)...)
	}
	return p
}

// randomOf distributes at random over indexes.
func randomOf(indexes []int) program {
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

// stickyProgram always sends a client address to the same target: IPv4 by the whole
// address, IPv6 by its /64. targets[i] are the group indexes that serve target i; of
// several, any is chosen. The clients of a target without, and only they, go to a second
// choice among the others. The hash is consistent: one more target moves about 1/n of the
// clients. At least one target must be served.
func stickyProgram(targets [][]int) program {
	return keyedProgram(clientKey(), targets, randomOf)
}

// clientKey loads the client's address into A.
func clientKey() program {
	return program{
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
	}
}

// keyedProgram chooses a target by the key that key loads into A, and by within among the
// sockets of one. within finds the mixed key in the first word of memory.
func keyedProgram(key program, targets [][]int, within func([]int) program) program {
	var served []int
	for _, indexes := range targets {
		if len(indexes) > 0 {
			served = append(served, indexes[0])
		}
	}
	p := mixed(key)
	var toSecond []int // places of the jumps to the second choice
	var several branches
	leave := func(indexes []int) {
		if len(indexes) > 0 {
			p = several.leave(p, indexes)
			return
		}
		toSecond = append(toSecond, len(p))
		p = append(p, unix.SockFilter{Code: ja})
	}
	for i := len(targets) - 1; i > 0; i-- {
		// Target i takes one key in i+1: the others keep the target that i targets gave
		// them.
		p = append(p, remix(targetKey(i))...)
		p = append(p,
			unix.SockFilter{Code: modK, K: uint32(i + 1)},
			unix.SockFilter{Code: jeqK, Jf: 1, K: 0})
		leave(targets[i])
	}
	leave(targets[0])
	p = several.end(p, within)
	if len(toSecond) == 0 {
		return p
	}
	for _, at := range toSecond {
		p[at].K = uint32(len(p) - at - 1)
	}
	p = append(p, remix(0x9e3779b1)...)
	p = append(p, unix.SockFilter{Code: modK, K: uint32(len(served))})
	return append(p, choose(served)...)
}

// mixed is key and a finaliser, which mixes it and stores it in the first word of memory.
func mixed(key program) program {
	return append(slices.Clone(key), program{
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
	}...)
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

// targetKey is odd and must never change: an old and a new master must choose the same
// target for a client.
func targetKey(i int) uint32 {
	x := uint64(i) * 0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	return uint32(x>>16) | 1
}

// attach sets the program of fd's whole group, atomically: each SYN sees the old program
// or the new one.
func attach(fd int, p program) error {
	if len(p) > unix.BPF_MAXINSNS {
		return fmt.Errorf("cannot steer: program of %d instructions, %d are allowed", len(p), unix.BPF_MAXINSNS)
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET,
		unix.SO_ATTACH_REUSEPORT_CBPF, uintptr(unsafe.Pointer(&prog)), unsafe.Sizeof(prog), 0)
	if errno != 0 {
		return fmt.Errorf("%w (%w)", ErrNoSteering, errno)
	}
	return nil
}
