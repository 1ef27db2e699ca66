package node

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
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

// ownSocket duplicates a descriptor of a worker on which it wants to serve: listen({fd}).
// The caller owns the duplicate.
func ownSocket(p *linux.Pidfd, fd int) (int, error) {
	got, err := p.Getfd(fd)
	if err != nil {
		return -1, err
	}
	if _, err = unix.GetsockoptInt(got, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		err = unix.EINVAL
	} else {
		// Node up to 18 expects a non-blocking handle from its primary, and would block
		// in accept(2).
		err = unix.SetNonblock(got, true)
	}
	if err != nil {
		go unix.Close(got) // of any kind: see queue
		return -1, err
	}
	return got, nil
}
