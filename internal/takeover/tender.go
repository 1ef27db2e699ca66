package takeover

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/internal/relay"
)

// connHeld is a connection of which the process has a duplicate.
//
//	program's ──(idle)──► filtered ──the program closes it──► owned ──a request──► answered
//	    │                     └─after maxFilter─► program's     ├──nothing in the linger──► closed
//	    └─────────────(it closes it)───────────────────────────►└──anything else──► closed
type connHeld struct {
	Inode   uint64   `json:"inode"`
	Path    bool     `json:"path,omitempty"` // a unix socket
	Holders []holder `json:"holders"`

	fd       int
	name     string // its link in /proc
	filtered bool
	spared   bool      // it has had one, and is not idle
	since    time.Time // when the filter was put on
	deaf     time.Time // when the first one was; zero: none was
	lifted   time.Time // when the last one was taken off
	sent     uint64    // bytes, when it was armed
	received uint64    // likewise
	by       time.Time // owned: it is closed then
}

const (
	// maxFilter is how long a filter stays on what the program has not closed: it was not
	// idle in its eyes.
	maxFilter = 300 * time.Millisecond
	// maxArm is how long requests that are under way are awaited before the signal.
	maxArm = 60 * time.Millisecond
	// maxLate is how much of a wait that took longer than planned counts.
	maxLate = 20 * time.Millisecond
	// afterAnswer is how long a connection that the program has closed after its first answer,
	// or that has a path, may have another request. The end of an answer may be the close, which
	// the client waits for.
	afterAnswer = 100 * time.Millisecond
	afterPath   = 200 * time.Millisecond
	// firstResend is twice the first wait of a client for an acknowledgement.
	firstResend = 400 * time.Millisecond
)

// tender has the connections of one worker, in a goroutine of its own: a worker that holds
// the lock of a socket stops nobody else's.
type tender struct {
	armMessage
	conns   []*connHeld // the program's, with or without a filter
	owned   map[int]*connHeld
	holders *holders
	leader  *linux.Pidfd
	epoll   int
	report  func(report)
	serve   func(fd int) // owns the connection, and answers what it asks; a goroutine of its own
	looks   func(peeked []byte) relay.Verdict
	closed  int    // descriptors, not reported yet
	totals  Totals // likewise
}

// report is what a tender tells the process.
type report struct {
	armed   *Armed
	add     Totals
	closed  int // descriptors
	emptied *Emptied
	spliced int  // connections
	served  bool // a connection is answered, elsewhere
	done    bool // the tender has ended
}

// run tends them until each has an end.
func (t *tender) run() {
	defer func() {
		t.tell()
		t.report(report{done: true})
	}()
	t.owned, t.holders = map[int]*connHeld{}, newHolders(t.Roots)
	defer t.holders.close()
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.abandon()
		t.report(report{armed: &Armed{Worker: t.Worker}})
		return
	}
	defer unix.Close(t.epoll)
	if t.leader, err = linux.OpenPidfd(t.Roots[0]); err == nil {
		defer t.leader.Close()
		unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, t.leader.FD(), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	armed, began := Armed{Worker: t.Worker}, time.Now()
	if t.Uncaught {
		armed.Busy = t.settle()
		began = time.Now()
	} else {
		t.arm()
	}
	armed.Taken = len(t.conns)
	for _, c := range t.conns {
		if c.filtered {
			armed.Filtered++
		}
	}
	t.totals.Taken = armed.Taken
	t.tell()
	t.report(report{armed: &armed})
	t.watch(began)
}

// tell reports what has changed.
func (t *tender) tell() {
	if t.totals != (Totals{}) || t.closed > 0 {
		t.report(report{add: t.totals, closed: t.closed})
		t.totals, t.closed = Totals{}, 0
	}
}

// close closes a duplicate.
func (t *tender) close(c *connHeld) {
	c.lift()
	unix.Close(c.fd)
	t.closed++
}

// arm puts filters on what is idle. A request that has just come may lie unread, and be
// read and dropped after the signal: for a moment it is waited for those that are answered.
func (t *tender) arm() {
	for until := time.Now().Add(maxArm); t.armOnce() > 0 && time.Now().Before(until); {
		time.Sleep(settleEvery)
	}
}

func (t *tender) armOnce() (busy int) {
	t.conns = slices.DeleteFunc(t.conns, func(c *connHeld) bool {
		g, mine := t.glance(c)
		if !mine {
			return true
		}
		if !c.filtered {
			c.sent, c.received = g.sent, g.received
		}
		if !c.filtered && g.idle() {
			c.filter()
		}
		if !c.filtered && !c.Path {
			busy++
		}
		return false
	})
	return busy
}

// glance looks at a connection. One that is not to be held, since it is about to end, or
// has another's filter, is closed here: mine is false.
func (t *tender) glance(c *connHeld) (g glance, mine bool) {
	if c.Path {
		return g, true
	}
	g, err := look(c.fd)
	if err == nil && g.open && (c.filtered || filterOf(c.fd) != anothers) {
		return g, true
	}
	t.close(c)
	return g, false
}

// filter puts the filter on, unless something came in before it.
func (c *connHeld) filter() {
	if c.Path || c.filtered || attach(c.fd) != nil {
		return
	}
	c.filtered, c.since = true, time.Now()
	if c.deaf.IsZero() {
		c.deaf = c.since
	}
	if n, err := unix.IoctlGetInt(c.fd, unix.SIOCINQ); err != nil || n > 0 {
		c.lift()
	}
}

// lift takes it off.
func (c *connHeld) lift() {
	if c.filtered {
		detach(c.fd)
		c.filtered, c.lifted = false, time.Now()
	}
}

// watch waits until the program closes connections, and tends those.
func (t *tender) watch(armed time.Time) {
	end, next, lifted := armed.Add(t.Watch), armed, false
	// Of time in which this process gets no turn little counts: the program may have had none either.
	last, ran, planned := armed, time.Duration(0), time.Duration(0)
	events := make([]unix.EpollEvent, 256)
	for { // ends when each has an end
		now := time.Now()
		ran += min(now.Sub(last), planned+maxLate)
		last = now
		if len(t.conns) > 0 && !now.Before(next) {
			t.lookFor(now)
			next = time.Now().Add(pace(time.Since(now), !lifted))
		}
		if !lifted && (ran >= maxFilter || now.Sub(armed) > maxStretch) {
			for _, c := range t.conns {
				c.lift()
			}
			lifted = true
		}
		if !now.Before(end) {
			t.abandon()
		}
		t.expire(now)
		t.tell()
		if len(t.conns)+len(t.owned) == 0 {
			return
		}
		until := next
		if lift := now.Add(maxFilter - ran); !lifted && lift.Before(until) {
			until = lift
		}
		if len(t.conns) == 0 {
			until = now.Add(time.Minute)
		}
		for _, c := range t.owned {
			if c.by.Before(until) {
				until = c.by
			}
		}
		planned = max(time.Until(until), 0)
		n, err := unix.EpollWait(t.epoll, events, int(planned.Milliseconds())+1)
		if err != nil {
			continue
		}
		for _, e := range events[:n] {
			if c := t.owned[int(e.Fd)]; c != nil {
				t.readable(c)
			} else if e.Fd < 0 { // the leader has died
				unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, t.leader.FD(), nil)
				next = time.Time{}
			}
		}
	}
}

// lookFor finds what the program has closed.
func (t *tender) lookFor(now time.Time) {
	t.holders.begin()
	var seem []*connHeld
	for _, c := range t.conns {
		if !t.holders.have(c) {
			seem = append(seem, c)
		}
	}
	if len(seem) == 0 {
		return
	}
	closed := map[*connHeld]bool{}
	for _, c := range t.holders.elsewhere(seem) {
		closed[c] = true
		t.own(c, now)
	}
	t.conns = slices.DeleteFunc(t.conns, func(c *connHeld) bool { return closed[c] })
}

// sentAgain is when a client has sent again, at the latest, what a filter has dropped: it
// doubles its waits, the first of which is 200 ms (TCP_RTO_MIN) or somewhat more.
func (c *connHeld) sentAgain(now time.Time) time.Time {
	if c.deaf.IsZero() {
		return time.Time{}
	}
	end := c.lifted
	if c.filtered {
		end = now
	}
	return end.Add(end.Sub(c.deaf) + firstResend)
}

// own: nobody else has the connection.
func (t *tender) own(c *connHeld, now time.Time) {
	c.by = now.Add(t.Linger)
	if again := c.sentAgain(now); again.After(c.by) {
		c.by = again
	}
	if c.Path {
		c.by = now.Add(min(afterPath, t.Linger))
	} else if g, err := look(c.fd); err != nil || !g.open && g.unread == 0 {
		t.close(c) // it was shut down, or the client has gone
		return
	} else if g.unread == 0 && g.sent != c.sent && c.sent == 0 { // its first answer
		c.by = now.Add(min(afterAnswer, t.Linger))
	} else if g.unread == 0 && g.sent == c.sent && g.received != c.received { // it was read, and not answered: this is the program's answer
		c.by = now
	}
	t.owned[c.fd] = c
	t.totals.Owned++
	unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(c.fd)})
	c.lift() // only now: what comes is heard
}

// readable looks at what has come, without reading it.
func (t *tender) readable(c *connHeld) {
	var buf [relay.PeekSize]byte
	n, _, err := unix.Recvfrom(c.fd, buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil || n <= 0:
		t.totals.Idle++
		t.end(c)
		return
	}
	switch t.looks(buf[:n]) {
	case relay.HTTP1:
		delete(t.owned, c.fd)
		unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
		t.serve(c.fd)
	case relay.More: // the linger goes on
	default:
		t.totals.Closed++
		t.end(c)
	}
}

// end closes an owned connection.
func (t *tender) end(c *connHeld) {
	delete(t.owned, c.fd)
	t.totals.Owned--
	t.close(c)
}

// expire closes what nothing has come on.
func (t *tender) expire(now time.Time) {
	for _, c := range t.owned {
		if !now.Before(c.by) {
			t.totals.Idle++
			t.end(c)
		}
	}
}

// abandon leaves the rest to the program.
func (t *tender) abandon() {
	for _, c := range t.conns {
		t.close(c)
		t.totals.Left++
	}
	t.conns = nil
}
