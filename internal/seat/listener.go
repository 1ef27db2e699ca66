package seat

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Listener receives the stopped calls of one worker and its descendants. One
// goroutine may Receive; calls may be answered from any.
type Listener struct {
	file    *os.File
	raw     syscall.RawConn
	board   *board
	boardFD int
	left    []int // slots of calls that a master before has received
}

// NewListener takes a notification descriptor over, and the file of [NewBoard]
// that belongs to it: calls that a master before has received and not answered
// are received again. They are left to Close also when it returns an error.
func NewListener(fd, board int) (*Listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // into Go's poller
		unix.Close(fd)
		unix.Close(board)
		return nil, err
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "seat"), boardFD: board}
	var err error
	if l.raw, err = l.file.SyscallConn(); err == nil {
		l.board, l.left, err = openBoard(board)
	}
	if err != nil {
		l.file.Close()
		unix.Close(board)
		return nil, err
	}
	return l, nil
}

// Close ends a Receive. Calls that are stopped then fail with ENOSYS in the
// program.
func (l *Listener) Close() error {
	err := l.file.Close()
	l.board.close()
	unix.Close(l.boardFD)
	return err
}

// Call is one stopped bind or listen. Exactly one of Continue, Answer and Give
// ends it; a program that has died meanwhile is no error.
type Call struct {
	l      *Listener
	id     uint64
	slot   int // of the board
	PID    int // the thread that called
	Listen bool
	FD     int // the program's descriptor
	// Of a TCP socket; Addr is zero for a listen on a socket that has no
	// address yet. Other sockets are not reported at all: they Continue.
	Addr      netip.AddrPort
	V6Only    bool
	ReusePort bool
	// Process is the process that called, and Socket a duplicate of its socket.
	// The call owns both.
	Process *linux.Pidfd
	Socket  int
	Inode   uint64 // of the program's socket
}

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

type addFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// Receive returns the next call on a TCP socket. Calls on others are let
// through here. It returns io.EOF when no process has the filter any more, or
// the listener is closed. blind is called for a call that may not be looked at.
func (l *Listener) Receive(blind func(pid int, err error)) (*Call, error) {
	for {
		n, slot, err := l.next()
		if err != nil {
			return nil, err
		}
		c := &Call{l: l, id: n.id, slot: slot, PID: int(n.pid), Listen: n.nr == unix.SYS_LISTEN, FD: int(int32(n.args[0])), Socket: -1}
		ok, err := c.look(n.args[1], n.args[2])
		if err != nil && l.valid(n.id) {
			blind(c.PID, err)
		}
		if ok && l.valid(n.id) {
			return c, nil
		}
		c.Continue()
	}
}

func (l *Listener) next() (n notification, slot int, err error) {
	for len(l.left) > 0 {
		slot, l.left = l.left[0], l.left[1:]
		if n = l.board.calls[slot]; l.valid(n.id) {
			return n, slot, nil
		}
		l.board.clear(slot)
	}
	slot = <-l.board.free // each call is answered, by a loop that lives as long as this
	for {
		done := false
		err := l.raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			k, err := unix.Poll(p, 0)
			if err == unix.EINTR || k == 0 {
				return false
			}
			done = p[0].Revents&unix.POLLIN == 0 // POLLHUP: nobody is left
			return true
		})
		if err != nil || done {
			return n, slot, io.EOF
		}
		l.board.calls[slot] = notification{}
		// The call may have been taken back between poll and here, by a KILL:
		// this then waits for the next one, or for the end.
		switch errno := l.ioctl(ioctlRecv, unsafe.Pointer(&l.board.calls[slot])); errno {
		case 0:
			return l.board.calls[slot], slot, nil
		case unix.ENOENT, unix.EINTR:
		default:
			return n, slot, io.EOF
		}
	}
}

func (l *Listener) ioctl(request uintptr, p unsafe.Pointer) unix.Errno {
	var errno unix.Errno
	err := l.raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(p))
	})
	if err != nil {
		return unix.EBADF
	}
	return errno
}

// valid tells whether the call still waits: only then was what has been read
// about its process about that process.
func (l *Listener) valid(id uint64) bool { return l.ioctl(ioctlIDValid, unsafe.Pointer(&id)) == 0 }

// look reads what the call is about; ok tells whether it is about TCP.
func (c *Call) look(addr, size uint64) (ok bool, err error) {
	if c.Process, err = linux.OpenThread(c.PID); err != nil {
		return false, err
	}
	if c.Socket, err = c.Process.Getfd(c.FD); err != nil {
		if err == unix.EBADF {
			return false, nil // the kernel will tell the program
		}
		return false, fmt.Errorf("cannot look at its socket: %w", err)
	}
	domain := option(c.Socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if domain != unix.AF_INET && domain != unix.AF_INET6 ||
		option(c.Socket, unix.SOL_SOCKET, unix.SO_TYPE) != unix.SOCK_STREAM {
		return false, nil
	}
	// Go listens with MPTCP since 1.24. A held TCP socket in its place is what
	// it would fall back to.
	switch option(c.Socket, unix.SOL_SOCKET, unix.SO_PROTOCOL) {
	case unix.IPPROTO_TCP, unix.IPPROTO_MPTCP:
	default:
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.Socket, &st); err != nil {
		return false, err
	}
	c.Inode = st.Ino
	c.V6Only = domain == unix.AF_INET6 && option(c.Socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 1
	c.ReusePort = option(c.Socket, unix.SOL_SOCKET, unix.SO_REUSEPORT) == 1
	if c.Listen {
		sa, err := unix.Getsockname(c.Socket)
		if err == nil {
			c.Addr, _ = address(sa)
		}
		return true, nil
	}
	c.Addr, err = readAddress(c.PID, addr, size, domain)
	return err == nil, nil // a bad address is the kernel's to refuse
}

func option(fd, level, name int) int {
	v, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return -1
	}
	return v
}

func address(sa unix.Sockaddr) (netip.AddrPort, bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

var errAddress = errors.New("not an internet address")

// readAddress reads a struct sockaddr in the memory of a process.
func readAddress(pid int, at, size uint64, domain int) (netip.AddrPort, error) {
	if size < unix.SizeofSockaddrInet4 || size > 4096 {
		return netip.AddrPort{}, errAddress
	}
	b := make([]byte, min(size, unix.SizeofSockaddrInet6))
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return parseAddress(b[:n], domain)
}

// parseAddress reads a struct sockaddr_in or sockaddr_in6.
func parseAddress(b []byte, domain int) (netip.AddrPort, error) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, errAddress
	}
	family := int(*(*uint16)(unsafe.Pointer(&b[0])))
	port := uint16(b[2])<<8 | uint16(b[3])
	switch {
	case family != domain:
		return netip.AddrPort{}, errAddress
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if scope := *(*uint32)(unsafe.Pointer(&b[24])); scope != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(a, port), nil
	}
	return netip.AddrPort{}, errAddress
}

func (c *Call) release() {
	if c.Socket >= 0 {
		unix.Close(c.Socket)
		c.Socket = -1
	}
	if c.Process != nil {
		c.Process.Close()
		c.Process = nil
	}
}

// Continue lets the call go its way.
func (c *Call) Continue() {
	c.release()
	c.l.ioctl(ioctlSend, unsafe.Pointer(&response{id: c.id, flags: responseContinue}))
	c.l.board.clear(c.slot)
}

// Answer ends the call without executing it: errno 0 is success.
func (c *Call) Answer(errno unix.Errno) {
	c.release()
	c.l.ioctl(ioctlSend, unsafe.Pointer(&response{id: c.id, errno: -int32(errno)}))
	c.l.board.clear(c.slot)
}

// Give puts a duplicate of held under the program's own descriptor, in the
// place of the socket that the program made, with what the program had set on
// it. The call itself still waits for its answer.
func (c *Call) Give(held int) error {
	c.copyOptions(held)
	a := addFD{id: c.id, flags: addFDSet, srcfd: uint32(held), newfd: uint32(c.FD)}
	if c.closeOnExec() {
		a.newfdFlags = unix.O_CLOEXEC
	}
	if errno := c.l.ioctl(ioctlAddFD, unsafe.Pointer(&a)); errno != 0 {
		return fmt.Errorf("cannot put the held socket under descriptor %d: %w", c.FD, errno)
	}
	return nil
}

// closeOnExec tells whether the program's descriptor is: it is a property of the
// descriptor, which the duplicate does not have.
func (c *Call) closeOnExec() bool {
	flags, err := linux.DescriptorFlags(c.PID, c.FD)
	return err != nil || flags&unix.O_CLOEXEC != 0
}

// copied are the options that a program may set before bind and that its
// accepted connections, or its accept, depend on.
var copied = [...]struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
}

func (c *Call) copyOptions(held int) {
	for _, o := range copied {
		theirs, ours := option(c.Socket, o.level, o.name), option(held, o.level, o.name)
		if theirs >= 0 && theirs != ours {
			unix.SetsockoptInt(held, o.level, o.name, theirs)
		}
	}
	for _, name := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		// The kernel gives back the double of what was set.
		if theirs := option(c.Socket, unix.SOL_SOCKET, name); theirs > 0 && theirs != option(held, unix.SOL_SOCKET, name) {
			unix.SetsockoptInt(held, unix.SOL_SOCKET, name, theirs/2)
		}
	}
	var linger unix.Linger
	if l, err := unix.GetsockoptLinger(c.Socket, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && *l != linger {
		unix.SetsockoptLinger(held, unix.SOL_SOCKET, unix.SO_LINGER, l)
	}
	// O_NONBLOCK is on the description, which is the held socket's own: a
	// program whose accept is meant to block would get EAGAIN.
	if flags, err := unix.FcntlInt(uintptr(c.Socket), unix.F_GETFL, 0); err == nil {
		unix.SetNonblock(held, flags&unix.O_NONBLOCK != 0)
	}
}
