package bind

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/master/contract"
	"handoff/master/listeners"
)

// The first worker that binds a path makes the file, by its own call, with its own rights,
// umask and root: its socket becomes the held one when it listens. The first one of the next
// generation finds the path taken, and is bound all the same: its file is made beside it, and
// gets its name when the generation is put into service (listeners/beside.go). Others of a
// generation share its socket: their bind is answered, their listen is executed with that one
// under their descriptor; so it is for the next generation, too, where no file can be made
// beside. The file stays: who removes it, or puts a socket of his own in its place, is
// answered, and it is not done.

// promise is a path that a worker has bound, and does not listen on yet, as far as is known.
type promise struct {
	s     *Session
	place listeners.Place
	inode uint64 // of its socket
}

// paths has the unix sockets of a contract that are no addresses yet.
type paths struct {
	promises []promise
	removed  []listeners.Place // at the stop, by the first worker that did
	removals []removal         // under way
	names    bindintercept.Names
}

// publish has the sessions' goroutines report calls for the names that matter. At a stop
// they stay what they were: the addresses are closed before the workers end.
func (c *Contract) publish() {
	if c.host.Stopping() {
		return
	}
	var names []string
	for _, p := range c.host.Listeners().Places() {
		names = append(names, p.Name)
	}
	for _, p := range c.paths.promises {
		names = append(names, p.place.Name)
	}
	c.paths.names.Set(names)
}

// path answers a call about a unix socket.
func (s *Session) path(e called) {
	s.releaseClosed(e)
	if e.call.About().Listen {
		s.listensPath(e.call)
	} else {
		s.bindsPath(e)
	}
}

// names answers a call about the names of files.
func (s *Session) names(e called) {
	switch e.call.About().Op {
	case bindintercept.Unlink:
		s.unlinks(e.call)
	case bindintercept.Rename:
		s.renames(e)
	default:
		s.connects(e.call)
	}
}

// connects answers a connect. A program that tries whether somebody serves at its path
// already, before it takes it (Puma, PHP-FPM), means another instance: it is told what it
// would be if its own service did not serve there yet.
func (s *Session) connects(c call) {
	a := s.at(c.About().Spot)
	if a != nil && a.LeaseOf(s.ID) == nil && !s.listened && !s.contract.host.Stopping() {
		c.Answer(unix.ECONNREFUSED)
		return
	}
	c.Continue()
}

func place(s bindintercept.Spot) listeners.Place { return listeners.Place(s.Place) }

// at returns the address whose file is where a call means, and is still there.
func (s *Session) at(spot bindintercept.Spot) *listeners.Address {
	a := s.table().AtPlace(place(spot))
	if a == nil || !spot.Abstract() && a.File() != listeners.FileID(spot.File) {
		return nil
	}
	return a
}

// promised returns the promise of another worker, nil: there is none. Who is ready without
// having kept it does not listen there.
func (s *Session) promised(p listeners.Place) *promise {
	return s.contract.promise(func(o *promise) bool { return o.place == p && o.s != s && !s.contract.host.Ready(o.s.ID) })
}

func (c *Contract) promise(ok func(*promise) bool) *promise {
	for i := range c.paths.promises {
		if p := &c.paths.promises[i]; ok(p) {
			return p
		}
	}
	return nil
}

// forgetPromises ends promises.
func (c *Contract) forgetPromises(which func(promise) bool) {
	c.paths.promises = slices.DeleteFunc(c.paths.promises, which)
}

// bindsPath answers a bind.
func (s *Session) bindsPath(e called) {
	c := e.call
	r := c.About()
	p := place(r.Spot)
	if s.seats[r.Inode] != nil || s.beside[r.Inode].address != nil {
		c.Answer(unix.EINVAL) // it is bound, as far as it knows
		return
	}
	a := s.at(r.Spot)
	if a == nil && e.waited {
		a = s.table().AtPlace(p) // made meanwhile
	}
	if a != nil {
		if s.has(a) || (a.Endpoint().Type == listeners.SeqPacket) != r.SeqPacket {
			c.Continue() // EADDRINUSE, says the kernel
			return
		}
		s.bindsHeld(e, a)
		return
	}
	if (s.promised(p) != nil || s.contract.isRemoved(p)) && !e.expired {
		e.waited = true
		s.wait(e)
		return
	}
	s.contract.forgetPromises(func(o promise) bool { return o.s == s && (o.inode == r.Inode || o.place == p) })
	s.contract.paths.promises = append(s.contract.paths.promises, promise{s, p, r.Inode})
	s.contract.publish()
	c.Continue()
}

// has reports whether this worker has the path already, so that it is taken for it: but for
// one that it was given at its start, or has meant to remove.
func (s *Session) has(a *listeners.Address) bool {
	return a.Bound(s.ID) && !slices.Contains(s.unlinked, a)
}

// seat has a socket get the held one of an address when it listens.
func (s *Session) seat(inode uint64, a *listeners.Address) {
	if s.seats == nil || len(s.seats) >= contract.MaxLeases {
		s.seats = map[uint64]*listeners.Address{}
	}
	s.seats[inode] = a
	s.unlinked = slices.DeleteFunc(s.unlinked, func(o *listeners.Address) bool { return o == a })
}

// listensPath handles listen, which is executed: whose credentials clients see is told by
// the last one (SO_PEERCRED).
func (s *Session) listensPath(c call) {
	r := c.About()
	s.contract.forgetPromises(func(o promise) bool { return o.s == s && o.inode == r.Inode })
	a, inode := s.table().OfSocket(r.Inode), r.Inode
	var err error
	switch {
	case a != nil: // its own, or given at the start
	case s.beside[r.Inode].address != nil:
		a, err = s.addBeside(c)
	case s.seats[r.Inode] != nil && !s.seats[r.Inode].Closed():
		a = s.seats[r.Inode]
		inode, err = s.give(c, a)
		delete(s.seats, r.Inode)
	case r.Spot.Name == "":
		c.Continue() // EINVAL, says the kernel
		return
	case s.at(r.Spot) != nil: // renamed to it
		a = s.at(r.Spot)
		inode, err = s.give(c, a)
	case r.Spot.File == (bindintercept.File{}) && !r.Spot.Abstract() || s.table().Count(s.ID) >= contract.MaxLeases:
		c.Continue() // its file is gone: nobody reaches it
		s.listened = true
		s.report(contract.Listening{})
		return
	case hasPID(r.Spot.Name, r.TGID):
		c.Continue()
		s.report(contract.Own{Path: r.Spot.Path, Why: contract.NamedByPID})
		s.report(contract.Listening{Own: true})
		return
	default:
		a, err = s.adoptPath(c)
	}
	if err != nil {
		s.report(contract.Unplaced{Address: a, Err: err})
		c.Continue()
		return
	}
	l := a.LeaseOf(s.ID)
	if l == nil {
		if l, err = a.TakeSocket(s.ID, s.Slot, inode); err != nil {
			s.refuse(c, a.Endpoint(), err)
			return
		}
	}
	s.noteBound(c)
	l.Listening()
	if p := a.Place(); !slices.Contains(s.places, p) && len(s.places) < contract.MaxLeases {
		s.places = append(s.places, p)
	}
	c.Continue()
	s.contract.publish()
	s.accepts()
}

// hasPID reports whether a name has a process's pid in it: another worker's has another name (tsx's
// pipe). Small pids, a container's, are too easily a number of something else.
func hasPID(name string, pid int) bool {
	if pid < 100 {
		return false
	}
	notDigit := func(c rune) bool { return c < '0' || c > '9' }
	return slices.Contains(strings.FieldsFunc(name, notDigit), strconv.Itoa(pid))
}

// give puts the socket of an address that the generation has under the program's descriptor.
func (s *Session) give(c call, a *listeners.Address) (inode uint64, err error) {
	inode, fd := a.SocketFor(s.Gen)
	if inode == 0 {
		inode, fd = a.Inode(), a.FD()
	}
	return inode, c.Give(fd)
}

// adoptPath makes an address of the program's own socket.
func (s *Session) adoptPath(c call) (*listeners.Address, error) {
	fd, err := c.Socket()
	if err != nil {
		return nil, err
	}
	r, typ := c.About(), listeners.Stream
	if r.SeqPacket {
		typ = listeners.SeqPacket
	}
	return s.table().AdoptUnix(listeners.Bound{Type: typ, FD: fd, Gen: s.Gen, Place: place(r.Spot), File: listeners.FileID(r.Spot.File),
		Path: r.Spot.Path, Folder: c.Folder(), Made: listeners.Access(r.Made)})
}

// unlinks answers an unlink. At a stop it is executed: the path is left as the program leaves
// it. Another worker may have been first.
func (s *Session) unlinks(c call) {
	r := c.About()
	p := place(r.Spot)
	if s.contract.host.Stopping() {
		if removed := &s.contract.paths.removed; slices.Contains(s.places, p) {
			if r.Spot.Free || slices.Contains(*removed, p) {
				c.Answer(0)
				return
			}
			*removed = append(*removed, p)
		}
		c.Continue()
		return
	}
	// What has the name may be there only since the call was looked at.
	if a := s.table().AtPlace(p); a != nil && (s.at(r.Spot) != nil || a.InPlace()) {
		if r.Spot.Free {
			c.Answer(unix.ENOENT)
			return
		}
		a.Unlinked(s.ID)
		s.meansRemoved(a)
		c.Answer(0)
		return
	}
	own := s.contract.promise(func(o *promise) bool { return o.place == p && o.s == s })
	switch {
	case s.promised(p) != nil && own == nil:
		c.Answer(0)
	case r.Unheld:
		s.removes(c, p)
	default:
		c.Continue()
	}
}

// meansRemoved notes that the file of an address is gone, as far as the worker knows.
func (s *Session) meansRemoved(a *listeners.Address) {
	if !slices.Contains(s.unlinked, a) && len(s.unlinked) < contract.MaxLeases {
		s.unlinked = append(s.unlinked, a)
	}
}

// renames answers a rename.
func (s *Session) renames(e called) {
	c := e.call
	r := c.About()
	from, to := place(r.Spot), place(r.To)
	if s.contract.host.Stopping() || r.Flags != 0 || from == to {
		c.Continue()
		return
	}
	moved := s.at(r.Spot)
	source := s.contract.promise(func(o *promise) bool { return o.place == from && o.s == s })
	a := s.at(r.To)
	if a == nil && e.waited {
		a = s.table().AtPlace(to)
	}
	switch {
	case a != nil && source != nil: // the address keeps its file
		inode := source.inode
		s.renamesHeld(e, a, inode)
		return
	case a == nil && source != nil && s.promised(to) != nil && !e.expired:
		e.waited = true
		s.wait(e)
		return
	case moved != nil && !moved.Bound(s.ID): // a next generation's, out of its way
		s.meansRemoved(moved)
		c.LinkInstead() // answers
		return
	case moved != nil:
		moved.Moved(to, r.To.Path, c.Folder())
	case source != nil:
		source.place = to
	}
	s.contract.publish()
	c.Continue()
}

// endPaths: the worker has exited, or is dead.
func (s *Session) endPaths() {
	s.contract.forgetPromises(func(o promise) bool { return o.s == s })
	s.contract.forgetRemovals(s)
	for _, e := range s.beside { // it has never listened
		s.table().RemoveBeside(e.folder, e.name, listeners.FileID(e.made.File))
		e.close()
	}
	s.beside = nil
	s.contract.publish()
}
