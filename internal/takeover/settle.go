package takeover

import (
	"slices"
	"time"
)

// A program that does not catch the drain signal is ended by it, with the requests that it
// has. So it gets the signal only when it has answered all: an idle connection is filtered,
// and so is one with a request that has come in whole, so that no other follows.
//
// Of a connection whose last request came in the tick of the last answer (see
// glance.idle) nobody knows whether it is idle: it is, if nothing is sent for a while.

const (
	settleEvery = 2 * time.Millisecond
	// quietAnswer is how long after its last bytes an answer counts as complete;
	// quietRequest, a request as received.
	quietAnswer  = 10 * time.Millisecond
	quietRequest = 20 * time.Millisecond
	// unsure is how long an answer is awaited where none may be due.
	unsure = 500 * time.Millisecond
	// maxStretch is how long a filter stays on what is idle at a time, while others are
	// answered; then what the client has sent gets in, and it begins again. What is not idle
	// has it for maxFilter, and again when something was sent: it may be a websocket.
	maxStretch = time.Second
)

// settle waits until nothing is to be answered, as long as it may take, and returns how
// many connections have something to be answered after that.
func (t *tender) settle() (busy int) {
	for until := time.Now().Add(t.Patience); ; {
		began := time.Now()
		busy = 0
		t.conns = slices.DeleteFunc(t.conns, func(c *connHeld) bool {
			g, mine := t.glance(c)
			if mine && !c.settled(g, began) {
				busy++
			}
			return !mine
		})
		if busy == 0 || began.After(until) || t.leader != nil && t.leader.Dead() {
			return busy
		}
		t.tell()
		time.Sleep(max(settleEvery, time.Since(began)))
	}
}

// settled reports whether nothing is to be answered, and nothing can come.
func (c *connHeld) settled(g glance, now time.Time) bool {
	if c.Path {
		return true // nobody can tell
	}
	if !c.filtered {
		if c.spared && g.sent == c.sent {
			return false
		}
		c.spared, c.sent, c.received = false, g.sent, g.received
		if g.unread > 0 || !g.idle() && g.readFor < quietRequest {
			return false
		}
		c.filter()
		return c.filtered && g.certain()
	}
	if on := now.Sub(c.since); on > maxStretch || on > maxFilter && !g.idle() {
		c.lift()
		c.spared, c.sent = !g.idle(), g.sent
		return false
	}
	answered := g.sent != c.sent && g.sentFor >= quietAnswer
	return g.idle() && (g.certain() || answered || now.Sub(c.since) > unsure)
}
