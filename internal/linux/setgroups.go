package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setgroups changes the groups of the calling thread: syscall.Setgroups would change
// those of all.
func setgroups(groups []int) error {
	list := make([]uint32, len(groups)+1)
	for i, g := range groups {
		list[i] = uint32(g)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])), 0); errno != 0 {
		return errno
	}
	return nil
}
