package node

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/nodeipc"
	"handoff/master/listeners"
)

// endpointOf is the endpoint that a worker, which runs in dir, asks for.
func endpointOf(q nodeipc.Query, dir string) listeners.Endpoint {
	e := listeners.Endpoint{Addr: q.Address, Any: q.Any, Port: q.Port, V6Only: q.V6Only}
	switch q.Type {
	case nodeipc.TCP6:
		e.Family = listeners.IPv6
	case nodeipc.UDP4:
		e.Type = listeners.Datagram
	case nodeipc.UDP6:
		e.Family, e.Type = listeners.IPv6, listeners.Datagram
	case nodeipc.Pipe:
		e.Family = listeners.Unix
		// An abstract name, which Node's cluster module takes for a relative path.
		if i := strings.IndexByte(e.Addr, 0); i >= 0 {
			e.Addr = "@" + e.Addr[i+1:] // as --listen has it
			return e
		}
		if !filepath.IsAbs(e.Addr) && e.Addr != "" {
			e.Addr = filepath.Join(dir, e.Addr)
		}
		return e
	}
	if q.Port == 0 {
		e.Index = q.Index
	}
	return e
}

// endpointSaid is the address at which a worker reports that it listens.
func endpointSaid(l nodeipc.Listening, dir string) listeners.Endpoint {
	e := endpointOf(nodeipc.Query{Type: l.Type, Address: l.Address, Any: l.Address == "", Port: l.Port}, dir)
	e.Index = l.Index
	return e
}

// handleType is Node's name for the type of a socket.
func handleType(t listeners.Type) nodeipc.HandleType {
	if t == listeners.Datagram {
		return nodeipc.Datagram
	}
	return nodeipc.Stream
}

// ownSocket is a duplicate of a descriptor of a worker on which it wants to serve:
// listen({fd}). Who has it owns the descriptor. The zero value is none.
type ownSocket struct {
	fd  int
	err error
}

// duplicate returns the socket that a message asks to serve on. Serve calls it: looking
// at another process, and at what it has opened, may take as long as the worker likes.
func (s *Session) duplicate(m nodeipc.Message) ownSocket {
	if sent, ok := m.(nodeipc.HandleSent); ok {
		m = sent.Message
	}
	q, ok := m.(nodeipc.Query)
	if !ok || q.FD < 0 || q.TooLong {
		return ownSocket{}
	}
	fd, err := s.Process.Getfd(q.FD)
	if err != nil {
		return ownSocket{err: err}
	}
	if _, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		err = unix.EINVAL
	} else {
		// Node up to 18 expects a non-blocking handle from its primary, and would block
		// in accept(2).
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return ownSocket{err: err}
	}
	return ownSocket{fd: fd}
}

func (o ownSocket) discard() {
	if o.fd > 0 {
		outgoing{fd: o.fd}.discard()
	}
}
