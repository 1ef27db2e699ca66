package master

import (
	"errors"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// outgoing is one message to a worker. The descriptor is a duplicate that
// belongs to whoever has the message.
type outgoing struct {
	line []byte
	fd   int // -1: none
}

const (
	queueMost = 128  // messages between the loop and a channel's writer
	holdMost  = 1024 // messages held back behind a descriptor under way
	sendTries = 3    // of a descriptor that the worker says did not arrive
)

// channel is the loop's side of a worker's channel. One descriptor is under way
// at a time: Node keeps the last one that it has received and not claimed, so a
// second would take its place. What follows a descriptor waits for its receipt.
type channel struct {
	conn   *cmsg.Conn
	out    chan outgoing // closed by close; its writer ends then
	held   []outgoing    // behind the descriptor under way
	flying *outgoing     // sent, not acknowledged
	tries  int
	closed bool
}

func newChannel(conn *cmsg.Conn) *channel {
	c := &channel{conn: conn, out: make(chan outgoing, queueMost)}
	go c.write() // ends when the channel is closed
	return c
}

func (c *channel) write() {
	failed := false
	for m := range c.out {
		if !failed {
			var err error
			if m.fd >= 0 {
				err = c.conn.Write(m.line, m.fd)
			} else {
				err = c.conn.Write(m.line)
			}
			failed = err != nil // the reader sees the end as well
		}
		if m.fd >= 0 {
			unix.Close(m.fd)
		}
	}
}

var errFlooded = errors.New("it does not read what it is sent")

// send queues a message; it takes the descriptor over. It never blocks: a
// worker that asks and asks but does not read its answers gets an error.
func (c *channel) send(m outgoing) error {
	if c.closed {
		m.drop()
		return nil
	}
	if c.flying != nil {
		if len(c.held) >= holdMost {
			m.drop()
			return errFlooded
		}
		c.held = append(c.held, m)
		return nil
	}
	return c.put(m)
}

func (c *channel) put(m outgoing) error {
	if m.fd >= 0 {
		// A second duplicate, in case it has to be sent again.
		again, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			m.drop()
			return err
		}
		c.flying, c.tries = &outgoing{line: m.line, fd: again}, c.tries+1
	}
	select {
	case c.out <- m:
		return nil
	default:
		m.drop()
		return errFlooded
	}
}

// taken is the receipt for the descriptor under way.
func (c *channel) taken(ok bool) error {
	if c.flying == nil || c.closed {
		return nil
	}
	m := *c.flying
	c.flying = nil
	if !ok && c.tries < sendTries {
		return c.put(m)
	}
	m.drop()
	c.tries = 0
	for len(c.held) > 0 && c.flying == nil {
		m := c.held[0]
		c.held = c.held[1:]
		if err := c.put(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *channel) close() {
	if c.closed {
		return
	}
	c.closed = true
	close(c.out)
	c.conn.Close()
	if c.flying != nil {
		c.flying.drop()
	}
	for _, m := range c.held {
		m.drop()
	}
	c.held, c.flying = nil, nil
}

func (m outgoing) drop() {
	if m.fd >= 0 {
		unix.Close(m.fd)
	}
}

// listen reads a worker's channel to its end and posts what it says. Messages
// that are the program's own business stop here: a program that talks a lot
// costs its master no turn of the loop.
// tell, if there is one, hears them, and the end.
func listen(id fleet.ID, conn *cmsg.Conn, post func(event), tell func(nodeipc.Message, []byte)) {
	var split nodeipc.Splitter
	var fds []int // received, claimed by no line yet
	buf := make([]byte, 16<<10)
	bad := 0
	for {
		n, got, err := conn.Read(buf)
		if n == 0 || err != nil {
			break
		}
		fds = append(fds, got...)
		dropped := split.Feed(buf[:n], func(line []byte) {
			m, err := nodeipc.Parse(line)
			if err != nil {
				if bad++; bad <= badMost {
					post(garbled{id, "a line that is not understood: " + err.Error()})
				}
				return
			}
			if _, later := m.(nodeipc.Listening); tell != nil && !later { // it is told when it is steered to
				tell(m, line)
			}
			switch m.(type) {
			case nodeipc.Other:
				return
			case nodeipc.HandleSent:
				s := said{id: id, message: m}
				if len(fds) > 0 {
					s.fds, fds = fds[:1:1], fds[1:]
				}
				post(s)
				return
			}
			post(said{id: id, message: m})
		})
		if dropped > 0 {
			post(garbled{id, "a line of more than 1 MiB"})
		}
		if len(fds) > 8 { // nobody claims them
			closeAll(fds)
			fds = nil
		}
	}
	closeAll(fds)
	if tell != nil {
		tell(nil, nil)
	}
	post(hungUp{id})
}

// badMost is how many lines of a worker are reported as not understood.
const badMost = 5

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
