package node

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/internal/nodeipc"
	"handoff/master/listeners"
)

// endpointOf is what a worker asks for, which runs in dir.
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
		if !filepath.IsAbs(e.Addr) && e.Addr != "" && e.Addr[0] != 0 {
			e.Addr = filepath.Join(dir, e.Addr)
		}
		return e
	}
	if q.Port == 0 {
		e.Index = q.Index
	}
	return e
}

// endpointSaid is where a worker says that it listens.
func endpointSaid(l nodeipc.Listening, dir string) listeners.Endpoint {
	e := endpointOf(nodeipc.Query{Type: l.Type, Address: l.Address, Any: l.Address == "", Port: l.Port}, dir)
	e.Index = l.Index
	return e
}

// handleType is how Node has the type of a socket.
func handleType(t listeners.Type) nodeipc.HandleType {
	if t == listeners.Datagram {
		return nodeipc.Datagram
	}
	return nodeipc.Stream
}

// ownSocket takes a duplicate of a descriptor that a worker wants to serve on
// and that it has itself: listen({fd}). The caller owns it.
func ownSocket(p *linux.Pidfd, fd int) (int, error) {
	got, err := p.Getfd(fd)
	if err != nil {
		return -1, err
	}
	if _, err = unix.GetsockoptInt(got, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		err = unix.EINVAL
	} else {
		// Node up to 18 takes a handle from its primary as non-blocking already,
		// and would stand in accept(2) for ever.
		err = unix.SetNonblock(got, true)
	}
	if err != nil {
		go unix.Close(got) // whatever it is: see queue
		return -1, err
	}
	return got, nil
}
