package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mode says whose connections are relayed.
type Mode uint8

const (
	Local Mode = iota // of clients on this machine: the program sees the address that it saw before
	All               // of any client: the program sees an address of this machine
)

// ErrNotLocal: the client is none of this machine.
var ErrNotLocal = errors.New("the client's address is none of this machine")

// DialFrom connects to the address that the client of c had connected to. In mode Local it
// does so from the client's own address, and only if that is one of this machine: bind(2)
// says so.
func DialFrom(ctx context.Context, c net.Conn, mode Mode) (net.Conn, error) {
	switch to := c.LocalAddr().(type) {
	case *net.TCPAddr:
		return dialTCP(ctx, to, c.RemoteAddr(), mode)
	case *net.UnixAddr:
		return dialUnix(ctx, c, to, mode)
	}
	return nil, fmt.Errorf("cannot connect to an address of kind %s", c.LocalAddr().Network())
}

func dialTCP(ctx context.Context, to *net.TCPAddr, client net.Addr, mode Mode) (net.Conn, error) {
	d := net.Dialer{Control: anyPort, KeepAlive: -1}
	if mode == Local {
		from, ok := client.(*net.TCPAddr)
		if !ok {
			return nil, ErrNotLocal
		}
		if err := isLocal(from); err != nil {
			return nil, err
		}
		d.LocalAddr = &net.TCPAddr{IP: from.IP, Zone: from.Zone}
	}
	w, err := d.DialContext(ctx, "tcp", to.String())
	if errors.Is(err, unix.EADDRNOTAVAIL) && mode == Local {
		return nil, errors.Join(ErrNotLocal, err)
	}
	return w, err
}

// anyPort has the kernel choose the port at connect: one that is free towards this address.
func anyPort(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
}

// dialUnix connects to the path. A program may ask who is at the other end (SO_PEERCRED),
// so in mode Local only clients that are the same user as this process are relayed.
func dialUnix(ctx context.Context, c net.Conn, to *net.UnixAddr, mode Mode) (net.Conn, error) {
	if mode == Local {
		if err := sameUser(c); err != nil {
			return nil, err
		}
	}
	for {
		w, err := new(net.Dialer).DialContext(ctx, "unix", to.Name)
		if !errors.Is(err, unix.EAGAIN) {
			return w, err
		}
		// The accept queue is full: a connect that does not block says so at once.
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
