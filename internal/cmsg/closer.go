package cmsg

import (
	"time"

	"golang.org/x/sys/unix"
)

// Closer closes descriptors from other processes, in a goroutine of its own, in order:
// close(2) may block for as long as who has made them likes. A TCP socket waits for its
// SO_LINGER, a unix socket for those that are in its queue, a file of FUSE for its server.
// What takes longer than that is overtaken by those behind it, so that a few do not hold
// up all. The zero value has no goroutine yet. It belongs to one goroutine.
type Closer struct {
	// Foreign: the descriptors are of no use to anybody here, so that their SO_LINGER may
	// be taken from them. It belongs to the socket, which the sender may have, too.
	Foreign bool
	// Waits: where too many are waiting, Close waits as well, and so does the sender. Else
	// it never does, and each gets a thread.
	Waits bool

	closing *closing
}

const (
	maxQueue = 4096                   // descriptors that wait for a slow close; they are open
	maxWait  = 64                     // likewise, with Waits
	maxStuck = 16                     // slow closes that are overtaken; each has a thread
	slow     = 100 * time.Millisecond // is a close that takes longer
)

// closing is what the goroutines of a Closer share.
type closing struct {
	foreign bool
	queue   chan int      // closed by Stop
	stuck   chan struct{} // has one for each close that was overtaken; never closed
}

// Close closes a descriptor asynchronously.
func (c *Closer) Close(fd int) {
	if c.closing == nil {
		most := maxQueue
		if c.Waits {
			most = maxWait
		}
		c.closing = &closing{c.Foreign, make(chan int, most), make(chan struct{}, maxStuck)}
		go c.closing.run() // ends with Stop
	}
	if c.Waits {
		c.closing.queue <- fd
		return
	}
	select {
	case c.closing.queue <- fd:
	default:
		go unix.Close(fd) // ends with the close; out of order, and not awaited
	}
}

// CloseAll closes descriptors asynchronously.
func (c *Closer) CloseAll(fds []int) {
	for _, fd := range fds {
		c.Close(fd)
	}
}

// Stop ends the goroutine when the waiting descriptors are closed.
func (c *Closer) Stop() {
	if c.closing != nil {
		close(c.closing.queue)
		c.closing = nil
	}
}

// run closes what is queued. If one takes too long, another run has the rest.
func (c *closing) run() {
	for fd := range c.queue {
		closed, rest := make(chan struct{}), make(chan struct{}, 1) // whose send there succeeds goes on
		late := time.AfterFunc(slow, func() {
			select {
			case c.stuck <- struct{}{}:
			case <-closed: // while as many as may be are stuck
				return
			}
			select {
			case rest <- struct{}{}:
				c.run() // ends with Stop
			default:
				<-c.stuck
			}
		})
		if c.foreign {
			forgetLinger(fd)
		}
		unix.Close(fd)
		close(closed)
		select {
		case rest <- struct{}{}:
			late.Stop()
		default:
			<-c.stuck
			return
		}
	}
}

// forgetLinger lets a close of the last descriptor of a socket return at once.
func forgetLinger(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
}

// CloseForeign closes descriptors that somebody has sent, now: in a goroutine that only
// the sender waits for.
func CloseForeign(fds []int) {
	for _, fd := range fds {
		forgetLinger(fd)
		unix.Close(fd)
	}
}
