package fdstore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// Server holds descriptors by name, in the order in which they came. It belongs to
// one goroutine. The zero value is an empty store.
type Server struct {
	// Mirror holds everything, too; nil: nobody does.
	Mirror Mirror
	// GiveTimeout is how long a master may take to read what it has asked for; 0:
	// two seconds.
	GiveTimeout time.Duration
	// Close closes a descriptor that came from elsewhere, and was held by a name ("": it
	// was not), at once or soon, but those that are not a worker's in their order; nil:
	// at once.
	Close func(name string, fd int)
	// MaxFiles is how many descriptors this process may have; 0: as the kernel says.
	MaxFiles int

	held  []cmsg.Named
	stale map[string]bool // names that X_BEGIN found and nobody has stored since; nil: no X_BEGIN
}

// Mirror is a second store: that of the service manager above. What it is told is
// held already, or not any more.
type Mirror interface {
	Store(name string, fd int)
	Remove(name string)
}

const (
	maxHeld = 1 << 16
	maxName = 255 // FDNAME of sd_notify(3)
)

// Held is what is held. The descriptors stay the server's.
func (s *Server) Held() []cmsg.Named { return s.held }

// Adopt adds what somebody before has held, which a mirror has already. The server
// owns it from now on.
func (s *Server) Adopt(named ...cmsg.Named) { s.held = append(s.held, named...) }

// Take gives up what is held by a name, which the caller owns; -1 if there is none.
func (s *Server) Take(name string) (fd int) {
	for i, n := range s.held {
		if n.Name == name {
			s.held = append(s.held[:i], s.held[i+1:]...)
			return n.FD
		}
	}
	return -1
}

// Handle does what a message says of the store, and owns the descriptors that came
// with it. The error is of a master that cannot be given what it asks for, or of a
// descriptor that there is no room for.
func (s *Server) Handle(m Message, fds []int) (err error) {
	if m.begin {
		s.stale = map[string]bool{}
		for _, n := range s.held {
			s.stale[n.Name] = !strings.HasPrefix(n.Name, PassedPrefix)
		}
	}
	if m.remove {
		s.Remove(m.name)
	}
	if name := CleanName(m.name); m.store && len(fds) == 1 && name != "" && len(name) <= maxName {
		if !s.holds(name) && (len(s.held) >= maxHeld || s.full(fds[0])) {
			err = fmt.Errorf("cannot hold another descriptor: %w; if the master dies, the next one replaces workers (raise ulimit -n)", unix.EMFILE)
		} else {
			s.Store(name, fds[0])
			delete(s.stale, name)
			fds = nil
		}
	}
	if m.end {
		for name, stale := range s.stale {
			if stale {
				s.Remove(name)
			}
		}
		s.stale = nil
	}
	if m.give && len(fds) == 1 {
		err = s.give(fds[0], m.name)
		fds = nil
	}
	for _, fd := range fds {
		s.close("", fd)
	}
	return err
}

// CleanName is a name without what would end it in LISTEN_FDNAMES or in a message.
func CleanName(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == ':' {
			return '_'
		}
		return r
	}, name)
}

// Store holds fd, which it owns, in the place of what has the name.
func (s *Server) Store(name string, fd int) {
	if s.Mirror != nil {
		s.Mirror.Store(name, fd)
	}
	for i := range s.held {
		if s.held[i].Name == name {
			s.close(name, s.held[i].FD)
			s.held[i].FD = fd
			return
		}
	}
	s.held = append(s.held, cmsg.Named{Name: name, FD: fd})
}

func (s *Server) holds(name string) bool {
	return slices.ContainsFunc(s.held, func(n cmsg.Named) bool { return n.Name == name })
}

// Remove closes what is held by a name.
func (s *Server) Remove(name string) {
	if s.Mirror != nil {
		s.Mirror.Remove(name)
	}
	if fd := s.Take(name); fd >= 0 {
		s.close(name, fd)
	}
}

func (s *Server) close(name string, fd int) {
	if s.Close != nil {
		s.Close(name, fd)
	} else {
		unix.Close(fd)
	}
}

// give writes the store to a socket, which it takes over: a name and a newline for
// each, with the descriptor, and an empty line. only is the name of the one that is
// wanted; "" is all.
func (s *Server) give(fd int, only string) error {
	c, err := cmsg.Open(fd)
	if err != nil {
		return nil // who asks so gets nothing
	}
	defer c.Close()
	timeout := s.GiveTimeout
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	c.SetWriteDeadline(time.Now().Add(timeout))
	for _, n := range s.held {
		if only != "" && n.Name != only {
			continue
		}
		if err := c.Write([]byte(n.Name+"\n"), n.FD); err != nil {
			return fmt.Errorf("cannot pass the stored descriptors to the new master: %w", err)
		}
	}
	c.Write([]byte("\n"))
	return nil
}
