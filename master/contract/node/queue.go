package node

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

// outgoing is one message to a worker. The descriptor is a duplicate; the owner of the
// message owns it. Without a line, the descriptor is only closed.
type outgoing struct {
	line []byte
	fd   int // -1: none
}

const (
	maxQueued = 128  // messages between the loop and a queue's writer
	maxHeld   = 1024 // messages queued behind a descriptor in flight
	maxTries  = 3    // for a descriptor that did not arrive, according to the worker
)

// queue has the messages to a worker. One descriptor is in flight at a time: Node keeps
// only the last one that it has received and not claimed, so a second would replace it.
// Messages after a descriptor wait until it is acknowledged.
//
//	send ──► (held, while a descriptor is in flight) ──► out ──► write ──► the worker
//	           ▲                                                              │
//	           └──────────────────── acknowledged ◄───────────────────────────┘
//
// As much as possible is written immediately, so that a message is sent before the record
// says so: if the master is killed, no order may be lost. The rest goes through write,
// which may block.
//
// write closes descriptors, in a goroutine of this worker: close(2) of the last
// descriptor of a socket waits for its SO_LINGER, which the worker may have set.
type queue struct {
	conn     *cmsg.Conn
	out      chan outgoing // closed by close; write ends then
	unsent   atomic.Int32  // messages that write has taken and not written
	held     []outgoing    // behind the descriptor in flight
	inFlight *outgoing     // sent, not acknowledged
	left     []outgoing    // set by close: what write closes at its end
	tries    int
	closed   bool
}

func newQueue(conn *cmsg.Conn) *queue {
	q := &queue{conn: conn, out: make(chan outgoing, maxQueued)}
	go q.write() // ends when the queue is closed
	return q
}

func (q *queue) write() {
	failed := false
	for m := range q.out {
		if !failed && m.line != nil {
			var err error
			if m.fd >= 0 {
				err = q.conn.Write(m.line, m.fd)
			} else {
				err = q.conn.Write(m.line)
			}
			failed = err != nil // the reader sees the error, too
		}
		m.close()
		q.unsent.Add(-1)
	}
	for _, m := range q.left {
		m.close()
	}
}

func (m outgoing) close() {
	if m.fd >= 0 {
		unix.Close(m.fd)
	}
}

var errOverflow = errors.New("it does not read its messages")

// send queues a message and takes ownership of the descriptor. It never blocks: for a
// worker that does not read its answers it returns errOverflow.
func (q *queue) send(m outgoing) error {
	if q.closed {
		m.discard()
		return nil
	}
	if q.inFlight != nil {
		if len(q.held) >= maxHeld {
			m.discard()
			return errOverflow
		}
		q.held = append(q.held, m)
		return nil
	}
	return q.put(m)
}

func (q *queue) put(m outgoing) error {
	if m.fd >= 0 && m.line != nil {
		// A second duplicate, in case it must be sent again.
		again, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			m.discard()
			return err
		}
		q.inFlight, q.tries = &outgoing{line: m.line, fd: again}, q.tries+1
	}
	if m.line != nil && q.unsent.Load() == 0 && q.writeNow(&m) {
		m.discard()
		return nil
	}
	q.unsent.Add(1)
	select {
	case q.out <- m:
		return nil
	default:
		q.unsent.Add(-1)
		m.discard()
		return errOverflow
	}
}

// writeNow writes as much as possible, and reports whether that was all; else m is the
// rest.
func (q *queue) writeNow(m *outgoing) (all bool) {
	var fds []int
	if m.fd >= 0 {
		fds = append(fds, m.fd)
	}
	n, err := q.conn.WriteNow(m.line, fds...)
	if err != nil || n == 0 { // no room, or an error: write handles both
		return false
	}
	m.line = m.line[n:]
	if len(m.line) > 0 && m.fd >= 0 { // it was sent with the first byte
		outgoing{fd: m.fd}.discard()
		m.fd = -1
	}
	return len(m.line) == 0
}

// discardLater closes a descriptor that the worker also has, or had.
func (q *queue) discardLater(fd int) error {
	switch {
	case fd < 0:
		return nil
	case q.closed:
		outgoing{fd: fd}.discard()
		return nil
	}
	return q.put(outgoing{fd: fd})
}

// acknowledged: the worker has acknowledged the descriptor in flight, or rejected it.
func (q *queue) acknowledged(ok bool) error {
	if q.inFlight == nil || q.closed {
		return nil
	}
	m := *q.inFlight
	q.inFlight = nil
	if !ok && q.tries < maxTries {
		return q.put(m)
	}
	q.tries = 0
	err := q.discardLater(m.fd)
	for err == nil && len(q.held) > 0 && q.inFlight == nil {
		m := q.held[0]
		q.held = q.held[1:]
		err = q.put(m)
	}
	return err
}

// restore: the previous master has sent a descriptor that is not acknowledged. It is not
// sent again.
func (q *queue) restore() { q.inFlight, q.tries = &outgoing{fd: -1}, maxTries }

// busy reports whether the worker is far behind in reading.
func (q *queue) busy() bool { return len(q.out) > maxQueued/2 || len(q.held) > maxHeld/2 }

func (q *queue) close() {
	if q.closed {
		return
	}
	q.closed = true
	go q.conn.Close() // descriptors that the worker has sent, and nobody has read, are closed with it
	if q.inFlight != nil {
		q.left = append(q.left, *q.inFlight)
	}
	q.left = append(q.left, q.held...)
	q.held, q.inFlight = nil, nil
	close(q.out) // and write has what is left
}

// discard closes the descriptor without blocking the loop.
func (m outgoing) discard() {
	if m.fd >= 0 {
		go unix.Close(m.fd) // ends with the SO_LINGER of a worker's own socket, at the latest
	}
}
