package bindintercept

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// refused reports whether a call of the kernel's is refused to handoff as a whole, as
// Docker's default profile does with pidfd_getfd(2).
func refused(err error) bool { return err == unix.EPERM || err == unix.ENOSYS || err == unix.EACCES }

// lookBlind is look without the program's socket: /proc says what kind it is, and which.
// What the program has set on it is not known, but for O_NONBLOCK.
func (c *Call) lookBlind(addr, size uint64) (ok bool, err error) {
	inode, protocol, err := linux.SocketOf(c.PID, c.FD)
	if err != nil {
		return false, err
	}
	domain := 0
	switch protocol {
	case "TCP", "MPTCP":
		domain = unix.AF_INET
	case "TCPv6", "MPTCPv6":
		domain = unix.AF_INET6
	default:
		return false, nil
	}
	c.Blind, c.Inode = true, inode
	c.ReusePort = true // who binds twice has set it, or is told so by nobody
	flags, err := linux.DescriptorFlags(c.PID, c.FD)
	c.options.nonblock = err == nil && flags&unix.O_NONBLOCK != 0
	if c.Listen {
		return true, nil
	}
	c.Addr, err = readAddress(c.PID, addr, size, domain)
	return err == nil, nil // a bad address is the kernel's to refuse
}

// readMemory reads what the address of a program's says.
func readMemory(pid int, at uint64, b []byte) (int, error) {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if !refused(err) {
		return n, err
	}
	f, ferr := os.Open(fmt.Sprintf("/proc/%d/mem", pid)) // the same right, by another call
	if ferr != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(b, int64(at))
}

// TryInspect looks for what is read of programs that bind: of this one. It returns what is
// refused; nil: nothing.
func TryInspect() error {
	p, err := linux.OpenPidfd(os.Getpid())
	if err != nil {
		return fmt.Errorf("pidfd_open is refused: %w", err)
	}
	defer p.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	got, err := p.Getfd(fd)
	if err == nil {
		unix.Close(got)
		return nil
	}
	err = fmt.Errorf("pidfd_getfd is refused: %w", err)
	if _, protocol, perr := linux.SocketOf(os.Getpid(), fd); perr != nil || !strings.HasPrefix(protocol, "TCP") {
		return errors.Join(ErrBlind, err, perr)
	}
	return err
}

// ErrBlind says that nothing is known of a program's sockets: they are not held.
var ErrBlind = errors.New("cannot tell one socket from another")
