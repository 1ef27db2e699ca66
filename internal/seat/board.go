package seat

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// A call that was received and not answered waits for ever: the kernel tells it
// once (seccomp_unotify(2)). So that a master that is killed between the two does
// not leave a thread hanging, the kernel writes what it tells into a file that the
// next master gets.

// boardCalls is how many calls of a worker wait for an answer at once; what is
// more waits in the kernel.
const boardCalls = 32

// board is the calls that were received and not answered. A slot whose id is 0 is
// free; the kernel wants it zeroed.
type board struct {
	calls  *[boardCalls]notification
	memory []byte
	free   chan int

	mu     sync.Mutex // guards closed, and the memory while it is used
	closed bool
}

// NewBoard returns a file for the calls of one worker; the caller closes it.
func NewBoard() (fd int, err error) {
	if fd, err = linux.Memfd("handoff-calls", make([]byte, unsafe.Sizeof([boardCalls]notification{}))); err != nil {
		return -1, fmt.Errorf("cannot make a file for a worker's calls: %w", err)
	}
	return fd, nil
}

// openBoard maps the file, which stays the caller's, and returns the slots of
// calls that somebody before has received.
func openBoard(fd int) (b *board, left []int, err error) {
	b = &board{free: make(chan int, boardCalls)}
	size := int(unsafe.Sizeof(*b.calls))
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Size < int64(size) {
		err = unix.EINVAL
	}
	if err == nil {
		b.memory, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use the file for a worker's calls: %w", err)
	}
	b.calls = (*[boardCalls]notification)(unsafe.Pointer(&b.memory[0]))
	for i := range b.calls {
		if b.calls[i].id != 0 {
			left = append(left, i)
		} else {
			b.calls[i] = notification{}
			b.free <- i
		}
	}
	return b, left, nil
}

// clear frees a slot whose call has its answer.
func (b *board) clear(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.calls[i] = notification{}
		b.free <- i
	}
}

func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		unix.Munmap(b.memory)
	}
}
