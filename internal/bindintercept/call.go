package bindintercept

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Kind is what a call is about. Calls about anything else are not reported: they Continue.
type Kind int

// The kinds.
const (
	TCP  Kind = iota
	Unix      // a stream or a seqpacket socket, by its path or abstract name
	UDP
)

// Request describes an intercepted call.
type Request struct {
	PID    int // the thread that called
	TGID   int // its process
	Kind   Kind
	Listen bool
	FD     int // the program's descriptor
	// Of a unix socket, or of the names of files (Op): Spot is where it is bound; zero where it
	// has no name. Listens, also of a TCP socket: it does already.
	Op                 Op
	Spot, To           Spot
	Flags              uint32 // of renameat2(2)
	Unheld             bool   // an unlink of a socket that is none of the service's: see [Call.Remove]
	SeqPacket, Listens bool
	Made               Access // how its file is made
	// Of a TCP or UDP socket; Addr is zero for a listen on a socket that has no
	// address yet. Has is the address that it has at a bind already. Failed are binds of
	// TCP sockets of before, of whose end this call tells.
	Addr, Has netip.AddrPort
	Failed    []Failed
	V6Only    bool
	ReusePort bool
	ReuseAddr bool
	MPTCP     bool
	Own       string // why the socket can be nobody else's; "": it can
	Inode     uint64 // of the program's socket
	User      int    // to which it belongs: the one of who created it
	// Blind: the socket could not be looked at. V6Only and ReusePort are not known, Addr
	// not that of a listen, and what the program has set on the socket is lost.
	Blind bool
}

// Call is one intercepted call. Exactly one of Continue and Answer ends it; it
// is no error if the program has died.
type Call struct {
	Request
	l       *Listener
	id      uint64
	entry   int          // in the pending calls
	process *linux.Pidfd // the process that called
	options options      // that the program has set on its socket
	shared  atomic.Bool  // see Beside
	text    string       // of a path that is bound, or Unheld
	at      int          // where that begins, if it is Unheld
	gone    bool         // it is Unheld, and nothing is there
	folders []int        // that names are in, open until the answer
}

// About returns the request of the call.
func (c *Call) About() Request { return c.Request }

// Caller returns the process that called, which the caller of this closes.
func (c *Call) Caller() (*linux.Pidfd, error) {
	fd, err := c.process.Duplicate()
	if err != nil {
		return nil, err
	}
	return linux.NewPidfd(c.TGID, fd)
}

// caller opens the process that called.
func (c *Call) caller() (err error) {
	if c.process, err = linux.OpenThread(c.PID); err == nil {
		c.TGID = c.process.PID()
	}
	return err
}

// look reads what the call is about; ok reports whether it is one of the kinds. The program's
// socket is closed again here, in the goroutine that attends to this one worker:
// close(2) of a socket that nobody else has any more waits for its SO_LINGER.
func (c *Call) look(addr, size uint64) (ok bool, err error) {
	if err = c.caller(); err != nil {
		return false, err
	}
	socket, err := c.process.Getfd(c.FD)
	if err != nil {
		if err == unix.EBADF {
			return false, nil // the kernel will tell the program
		}
		if refused(err) {
			if ok, berr := c.lookBlind(addr, size); berr == nil {
				return ok, nil
			}
		}
		return false, fmt.Errorf("cannot inspect its socket: %w", err)
	}
	defer unix.Close(socket)
	domain, typ := option(socket, unix.SOL_SOCKET, unix.SO_DOMAIN), option(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if c.Inode, c.User, err = identity(socket); err != nil {
		return false, err
	}
	switch inet := domain == unix.AF_INET || domain == unix.AF_INET6; {
	case domain == unix.AF_UNIX && (typ == unix.SOCK_STREAM || typ == unix.SOCK_SEQPACKET):
		c.Kind, c.SeqPacket = Unix, typ == unix.SOCK_SEQPACKET
		return c.lookUnix(socket, addr, size)
	case inet && typ == unix.SOCK_DGRAM && !c.Listen:
		c.Kind = UDP
	case inet && typ == unix.SOCK_STREAM:
		c.Kind = TCP
	default:
		return false, nil
	}
	// Go listens with MPTCP since 1.24. A held TCP socket in its place is what
	// it would fall back to.
	switch option(socket, unix.SOL_SOCKET, unix.SO_PROTOCOL) {
	case unix.IPPROTO_TCP, unix.IPPROTO_MPTCP, unix.IPPROTO_UDP:
	default:
		return false, nil
	}
	return c.lookInet(socket, domain, addr, size)
}

// lookInet reads what a call about a TCP or a UDP socket needs.
func (c *Call) lookInet(socket, domain int, addr, size uint64) (ok bool, err error) {
	c.V6Only = domain == unix.AF_INET6 && option(socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) == 1
	c.ReusePort = option(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT) == 1
	c.ReuseAddr = option(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR) == 1
	c.MPTCP = option(socket, unix.SOL_SOCKET, unix.SO_PROTOCOL) == unix.IPPROTO_MPTCP
	c.Listens = option(socket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) == 1
	c.Own = ownBecause(socket)
	c.options = optionsOf(socket)
	var has netip.AddrPort
	if sa, err := unix.Getsockname(socket); err == nil {
		has, _ = address(sa)
	}
	if c.Listen {
		c.Addr = has
		return !connected(socket), nil // EINVAL, says the kernel
	}
	c.Has = has
	c.Addr, err = readAddress(c.PID, addr, size, domain)
	return err == nil, nil // a bad address is the kernel's to refuse
}

// connected reports whether a TCP socket is, or was, part of a connection.
func connected(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State != unix.BPF_TCP_CLOSE && info.State != unix.BPF_TCP_LISTEN
}

func inode(fd int) (uint64, error) {
	n, _, err := identity(fd)
	return n, err
}

func identity(fd int) (inode uint64, user int, err error) {
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Ino, int(st.Uid), err
}

// Continue executes the call.
func (c *Call) Continue() { c.end(response{id: c.id, flags: responseContinue}) }

// Answer ends the call without executing it: errno 0 is success.
func (c *Call) Answer(errno unix.Errno) { c.end(response{id: c.id, errno: -int32(errno)}) }

func (c *Call) end(r response) {
	c.l.ioctl(ioctlSend, unsafe.Pointer(&r))
	c.l.pending.clear(c.entry)
	if c.process != nil {
		c.process.Close()
		c.process = nil
	}
	for _, fd := range c.folders {
		unix.Close(fd)
	}
	c.folders = nil
}

// Socket returns a duplicate of the program's socket. The caller closes it, not in a
// goroutine that must not block (SO_LINGER).
func (c *Call) Socket() (fd int, err error) {
	if fd, err = c.process.Getfd(c.FD); err != nil {
		return -1, fmt.Errorf("cannot duplicate its socket: %w", err)
	}
	if n, err := inode(fd); err != nil || n != c.Inode || c.Kind == TCP && connected(fd) {
		go unix.Close(fd) // ends with its SO_LINGER, at the latest
		return -1, unix.EBADF
	}
	return fd, nil
}

// Give replaces the program's socket by a duplicate of held, under the same descriptor,
// with the options that the program had set. The call still waits for its answer.
func (c *Call) Give(held int) error {
	if c.Blind {
		unix.SetNonblock(held, c.options.nonblock)
	} else {
		c.options.apply(held)
	}
	a := addFD{id: c.id, flags: addFDSet, srcfd: uint32(held), newfd: uint32(c.FD)}
	if c.closeOnExec() {
		a.newfdFlags = unix.O_CLOEXEC
	}
	if errno := c.l.ioctl(ioctlAddFD, unsafe.Pointer(&a)); errno != 0 {
		return fmt.Errorf("cannot put the held socket under descriptor %d: %w", c.FD, errno)
	}
	return nil
}

// closeOnExec reports whether the program's descriptor is: it is a property of the
// descriptor, which the duplicate does not have.
func (c *Call) closeOnExec() bool {
	flags, err := linux.DescriptorFlags(c.PID, c.FD)
	return err != nil || flags&unix.O_CLOEXEC != 0
}
