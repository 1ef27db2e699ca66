package bind

import (
	"slices"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/master/listeners"
)

// bindsHeld answers a bind to a path that another worker has.
func (s *Session) bindsHeld(e called, a *listeners.Address) {
	r := e.call.About()
	switch inode, _ := a.SocketFor(s.Gen); {
	case inode != 0:
		s.seat(r.Inode, a)
		e.call.Answer(0)
	case s.sibling(a) && !e.expired:
		e.waited = true
		s.wait(e)
	default:
		s.contract.paths.promises = append(s.contract.paths.promises, promise{s, a.Place(), r.Inode})
		name := listeners.BesideName(a.Place().Name, r.Inode)
		e.call.BindBeside(name, func(b bindintercept.Beside) { s.Post(madeBeside{e.call, a, r.Inode, name, e.call.Folder(), b}) })
	}
}

// renamesHeld answers a rename of a worker's socket to a path that another worker has.
func (s *Session) renamesHeld(e called, a *listeners.Address, inode uint64) {
	switch has, _ := a.SocketFor(s.Gen); {
	case has != 0:
		s.seat(inode, a)
		e.call.RemoveSource() // answers
	case s.sibling(a) && !e.expired:
		e.waited = true
		s.wait(e)
	default:
		name := listeners.BesideName(a.Place().Name, inode)
		e.call.MoveBeside(name, func(b bindintercept.Beside) { s.Post(madeBeside{e.call, a, inode, name, e.call.Folder(), b}) })
	}
}

// sibling reports whether another worker of the generation is about to have a socket for it.
func (s *Session) sibling(a *listeners.Address) bool {
	return s.contract.promise(func(o *promise) bool { return o.place == a.Place() && o.s != s && o.s.Gen == s.Gen }) != nil
}

// madeBeside: a file of a worker's socket was made beside the path of an address, or was not.
type madeBeside struct {
	call    call
	address *listeners.Address
	inode   uint64
	name    string
	folder  int // the session's
	made    bindintercept.Beside
}

func (e *madeBeside) close() {
	if e.folder >= 0 {
		unix.Close(e.folder)
	}
}

// besides ends a call for which a file was made beside a path. Where that cannot be, the next
// generation shares the socket of the one before.
func (s *Session) besides(e madeBeside) {
	if e.made.Err == nil {
		if s.beside == nil {
			s.beside = map[uint64]madeBeside{}
		}
		s.beside[e.inode] = e
		s.unlinked = slices.DeleteFunc(s.unlinked, func(o *listeners.Address) bool { return o == e.address })
		e.call.Answer(0)
		return
	}
	e.close()
	s.seat(e.inode, e.address)
	if e.call.About().Op == bindintercept.Rename {
		e.call.RemoveSource()
		return
	}
	e.call.Answer(0)
}

// addBeside has a socket that is about to listen be one of its address's.
func (s *Session) addBeside(c call) (*listeners.Address, error) {
	e := s.beside[c.About().Inode]
	delete(s.beside, e.inode)
	defer e.close()
	fd, err := c.Socket()
	if err != nil {
		return e.address, err
	}
	return e.address, e.address.AddBeside(fd, s.Gen, e.name, listeners.FileID(e.made.File), listeners.Access(e.made.Made))
}
