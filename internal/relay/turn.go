package relay

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// turn is what the two directions of an exchange know of each other: whether a further
// request is there when an answer begins, for if none is, the answer says that it is the
// last, and no request is taken up any more.
//
//	reader:  begin ─► (head, body pass) ─► complete ─► begin …
//	answers: last(n)? ─► yes: nothing begins any more
type turn struct {
	from        net.Conn // the client's
	mu          sync.Mutex
	begun       int  // requests that have been taken up
	between     bool // the last of them has passed, the next has not begun
	behind      bool // of the next, bytes have been read already
	endless     bool // the last of them ends with its answer
	stopped     bool // none is taken up any more
	finished    bool // the reader is not to wait for another
	interrupted bool // and does not wait any more
}

// take is called by the reader when it has bytes of a request: may it be taken up?
func (t *turn) take() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.begun++
	t.between = false
	return true
}

// complete is called by the reader before it passes the last bytes of a request on, since its
// answer may come at once; behind: bytes that follow it have been read.
func (t *turn) complete(behind bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.between, t.behind = true, behind
	if t.finished {
		t.interrupt()
	}
}

// openEnded is called by the reader for a request whose end it does not know. It says
// whether its answer is still awaited.
func (t *turn) openEnded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endless = true
	return !t.finished
}

// last is asked by answers when that of request n (from 1) begins.
func (t *turn) last(n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begun > n || t.between && (t.behind || unread(t.from) > 0) {
		return false
	}
	t.stopped = true
	return true
}

// noMore: the answer that passes is the last one.
func (t *turn) noMore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}

// stop ends the reader's waiting for what follows request n, or for the end of one that has
// none. What it reads of a request's body goes on.
func (t *turn) stop(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped, t.finished = true, true
	if t.begun > n || t.between || t.endless {
		t.interrupt()
	}
}

func (t *turn) interrupt() {
	t.interrupted = true
	t.from.SetReadDeadline(time.Unix(1, 0))
}

// tunnelled: the connection belongs to both sides until they end it.
func (t *turn) tunnelled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.between = false
}

// deadline sets one for the reader, unless it has been interrupted. 0: none.
func (t *turn) deadline(after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.interrupted:
	case after == 0:
		t.from.SetReadDeadline(time.Time{})
	default:
		t.from.SetReadDeadline(time.Now().Add(after))
	}
}

// unread is how many bytes wait in c's receive buffer.
func unread(c net.Conn) int {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
