package cmsg

import "golang.org/x/sys/unix"

// Closer closes descriptors from other processes, in a goroutine of its own, in order:
// close(2) of a socket may block for as long as its creator has set (SO_LINGER). The zero
// value has no goroutine yet. It belongs to one goroutine.
type Closer struct {
	queue chan int // closed by Stop
}

const maxQueue = 4096 // descriptors that wait for a slow close

// Close closes a descriptor asynchronously.
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
	if c.queue != nil {
		close(c.queue)
		c.queue = nil
	}
}
