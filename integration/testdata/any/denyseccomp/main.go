// Command denyseccomp runs a command under a filter that refuses seccomp(2), as
// some container profiles do, or the calls that DENY lists.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	names := map[string]uint32{"seccomp": unix.SYS_SECCOMP, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_open": unix.SYS_PIDFD_OPEN,
		"process_vm_readv": unix.SYS_PROCESS_VM_READV, "memfd_create": unix.SYS_MEMFD_CREATE}
	deny := os.Getenv("DENY")
	if deny == "" {
		deny = "seccomp"
	}
	insns := []unix.SockFilter{{Code: 0x20, K: 0}} // the number of the call
	for _, name := range strings.Split(deny, ",") {
		insns = append(insns, unix.SockFilter{Code: 0x15, Jf: 1, K: names[name]}, unix.SockFilter{Code: 0x06, K: 0x00050000 | uint32(unix.EPERM)})
	}
	insns = append(insns, unix.SockFilter{Code: 0x06, K: 0x7fff0000})
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err == nil {
		if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
			err = e
		}
	}
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
