package takeover

import (
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Between the drain signal and the program's close, a program may read a request and drop
// it (Go's Shutdown does). So nothing can be read in that time: a filter on the socket
// drops segments that have data, before they are acknowledged, and the client sends them
// again (after 200 ms on loopback). What has none, an ACK or a FIN, passes. It requires no
// privilege.

// filterMark is loaded first, and means nothing: it makes the filter ours.
const filterMark = 0x6861_6e64

// filter is the program. A packet begins at its TCP header, byte 12 of which has that
// header's length, in words, in its upper half.
func filter() []unix.SockFilter {
	stmt := func(code int, k uint32) unix.SockFilter { return unix.SockFilter{Code: uint16(code), K: k} }
	return []unix.SockFilter{
		stmt(unix.BPF_LD|unix.BPF_IMM, filterMark),
		stmt(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, 12),
		stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xf0),
		stmt(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 2),
		stmt(unix.BPF_MISC|unix.BPF_TAX, 0),
		stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_LEN, 0),
		stmt(unix.BPF_ALU|unix.BPF_SUB|unix.BPF_X, 0),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: 0},
		stmt(unix.BPF_RET|unix.BPF_K, 0xffffffff),
		stmt(unix.BPF_RET|unix.BPF_K, 0),
	}
}

// attach puts the filter on a connection.
func attach(fd int) error {
	code := filter()
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// detach takes the filter off.
func detach(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// whose tells whose filter a socket has.
type whose int

const (
	nobodys whose = iota
	ours
	anothers // also where that cannot be told
)

func filterOf(fd int) whose {
	code := make([]unix.SockFilter, len(filter()))
	n := uint32(len(code)) // in instructions
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&code[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch {
	case e != 0: // longer than ours; or it is no classic one
		return anothers
	case n == 0:
		return nobodys
	case int(n) == len(code) && slices.Equal(code, filter()):
		return ours
	}
	return anothers
}
