package bindintercept

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A call that was received and not answered would hang: the kernel reports it only once
// (seccomp_unotify(2)). In case a master is killed between the two, the kernel writes the
// notification into a file that the next master gets.

// maxPending is how many received calls of a worker can wait for an answer; others wait
// in the kernel.
const maxPending = 32

// pendingCalls has the calls that were received and not answered. An entry whose id is 0
// is free; the kernel requires it to be zeroed.
type pendingCalls struct {
	fd     int
	calls  *[maxPending]notification
	memory []byte
	free   chan int // never closed

	mu     sync.Mutex // guards closed, and the memory while it is used
	closed bool
}

// NewPendingCalls returns a file for the pending calls of one worker; the caller
// closes it.
func NewPendingCalls() (fd int, err error) {
	if fd, err = linux.Memfd("handoff-calls", make([]byte, unsafe.Sizeof([maxPending]notification{}))); err != nil {
		return -1, fmt.Errorf("cannot create a file for a worker's pending calls: %w", err)
	}
	return fd, nil
}

// mapPendingCalls takes ownership of the file, unless it returns an error, and returns
// the entries of calls that a previous listener has received.
func mapPendingCalls(fd int) (p *pendingCalls, left []int, err error) {
	p = &pendingCalls{fd: fd, free: make(chan int, maxPending)}
	size := int(unsafe.Sizeof(*p.calls))
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Size < int64(size) {
		err = unix.EINVAL
	}
	if err == nil {
		p.memory, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use the file for a worker's pending calls: %w", err)
	}
	p.calls = (*[maxPending]notification)(unsafe.Pointer(&p.memory[0]))
	for i := range p.calls {
		if p.calls[i].id != 0 {
			left = append(left, i)
		} else {
			p.calls[i] = notification{}
			p.free <- i
		}
	}
	return p, left, nil
}

// clear frees an entry whose call has its answer.
func (p *pendingCalls) clear(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.calls[i] = notification{}
		p.free <- i
	}
}

func (p *pendingCalls) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		unix.Munmap(p.memory)
		unix.Close(p.fd)
	}
}
