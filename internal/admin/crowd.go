package admin

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// maxConns is how many connections --admin has at once.
const maxConns = 64

// crowd limits the number of connections of a server: when there are too many, the oldest
// one that is not being answered is closed. It is safe for concurrent use.
type crowd struct {
	mu   sync.Mutex
	idle []net.Conn // on which no answer is under way, the oldest first
	busy int
}

// state is for [http.Server.ConnState]. A connection is active from the first byte of a
// request on: so it counts as busy only while a handler runs, see handling.
func (c *crowd) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	var out net.Conn
	switch s {
	case http.StateNew:
		c.idle = append(c.idle, conn)
		if len(c.idle)+c.busy > maxConns {
			out, c.idle = c.idle[0], slices.Delete(c.idle, 0, 1)
		}
	case http.StateHijacked, http.StateClosed:
		c.idle = slices.DeleteFunc(c.idle, func(o net.Conn) bool { return o == conn })
	}
	c.mu.Unlock()
	if out != nil {
		out.Close()
	}
}

// handling protects a connection while it is being answered, which takes at most
// loopTimeout.
func (c *crowd) handling(conn net.Conn) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.idle, conn)
	if i < 0 {
		return func() {}
	}
	c.idle = slices.Delete(c.idle, i, i+1)
	c.busy++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy--
		c.idle = append(c.idle, conn)
	}
}
