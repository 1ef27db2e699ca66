package bindintercept

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// From linux/seccomp.h and linux/audit.h.
const (
	setModeFilter    = 1
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5 // Linux 5.19: a signal does not take a call back that the master has received
	retAllow         = 0x7fff0000
	retUserNotif     = 0x7fc00000
	offNr            = 0 // of struct seccomp_data
	offArch          = 4
	offArg2          = 16 + 2*8 // its lower half: both architectures are little-endian

	ioctlRecv    = 0xc0502100
	ioctlSend    = 0xc0182101
	ioctlIDValid = 0x40082102
	ioctlAddFD   = 0x40182103

	addFDSet         = 1 // SECCOMP_ADDFD_FLAG_SETFD
	responseContinue = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// auditArch is AUDIT_ARCH_X86_64 or AUDIT_ARCH_AARCH64.
func auditArch() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return 0xc000003e, nil
	case "arm64":
		return 0xc00000b7, nil
	}
	return 0, fmt.Errorf("no seccomp filter for %s", runtime.GOARCH)
}

// filter stops bind(2), listen(2), what takes the name of a unix socket's file away, and
// connect(2) to one, and lets everything else through. A program of another architecture on this
// machine is let through whole.
func filter(arch uint32) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: retAllow},
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	for _, nr := range append([]uint32{unix.SYS_BIND, unix.SYS_LISTEN}, nameCalls...) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1},
			bpf.RetConstant{Val: retUserNotif})
	}
	return append(program,
		// Of connect(2) not those of the internet, whose addresses have these sizes.
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CONNECT, SkipFalse: 4},
		bpf.LoadAbsolute{Off: offArg2, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SizeofSockaddrInet4, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SizeofSockaddrInet6, SkipTrue: 5},
		bpf.RetConstant{Val: retUserNotif},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_UNLINKAT, SkipFalse: 3},
		bpf.LoadAbsolute{Off: offArg2, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.AT_REMOVEDIR, SkipTrue: 1}, // rmdir(2)
		bpf.RetConstant{Val: retUserNotif},
		bpf.RetConstant{Val: retAllow})
}

// install puts the filter on the calling thread and returns the notification
// descriptor, which is close-on-exec. It cannot be taken back.
func install() (fd int, err error) {
	arch, err := auditArch()
	if err != nil {
		return -1, err
	}
	raw, err := bpf.Assemble(filter(arch))
	if err != nil {
		return -1, err
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	try := func(flags uintptr) (int, unix.Errno) {
		n, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&prog)))
		return int(n), errno
	}
	n, errno := try(flagNewListener | flagWaitKillable)
	if errno == unix.EACCES {
		// Not root: allowed to those who can gain no privileges any more.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("cannot set no_new_privs: %w", err)
		}
		n, errno = try(flagNewListener | flagWaitKillable)
	}
	if errno == unix.EINVAL {
		n, errno = try(flagNewListener)
	}
	if errno != 0 {
		return -1, errno
	}
	return n, nil
}
