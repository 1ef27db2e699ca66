package cmsg

import "golang.org/x/sys/unix"

// Closer closes descriptors that came from elsewhere, in a goroutine of its own, in the
// order in which they come: close(2) of a socket may take as long as whoever has made it
// likes (SO_LINGER). The zero value has no goroutine yet. It belongs to one goroutine.
type Closer struct {
	queue chan int // closed by Stop
}

const maxQueue = 4096 // descriptors that wait for one that takes long

// Close closes a descriptor soon.
func (c *Closer) Close(fd int) {
	if c.queue == nil {
		c.queue = make(chan int, maxQueue)
		go func(queue <-chan int) { // ends with Stop
			for fd := range queue {
				unix.Close(fd)
			}
		}(c.queue)
	}
	select {
	case c.queue <- fd:
	default:
		go unix.Close(fd) // ends with the close; out of order, and never waited for
	}
}

// CloseAll closes descriptors soon.
func (c *Closer) CloseAll(fds []int) {
	for _, fd := range fds {
		c.Close(fd)
	}
}

// Stop ends the goroutine, once what waits is closed.
func (c *Closer) Stop() {
	if c.queue != nil {
		close(c.queue)
		c.queue = nil
	}
}
