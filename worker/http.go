package worker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ServeHTTP serves like [http.Server.Serve] until the worker drains, then drains, and
// returns nil when the last connection has ended. It owns srv and l; it closes l at the
// drain.
//
// In the drain:
//
//   - requests in progress are finished, also those that have been accepted and not read;
//   - each response has `Connection: close`, or, in HTTP/2, a GOAWAY is sent;
//   - an idle connection may still send a request for --keepalive-linger (6 s without
//     handoff), since its client does not know yet. It is closed only when it has been idle
//     for that time and its receive buffer is empty;
//   - ServeHTTP waits for hijacked connections (websockets). Close them when
//     [Worker.Draining] is closed; functions of srv.RegisterOnShutdown are called when only
//     hijacked ones are left.
//
// Requests are counted for --max-requests, see [Worker.Served].
//
// No connection is cut off: handoff enforces --drain-timeout; without handoff, a second
// signal ends the process.
func (w *Worker) ServeHTTP(srv *http.Server, l net.Listener) error {
	if reflect.TypeOf(l) == reflect.TypeOf(tls.NewListener(nil, nil)) {
		return errors.New("worker: ServeHTTP takes the listener below TLS: set srv.TLSConfig and call ServeHTTPS(srv, l, \"\", \"\")")
	}
	return w.serve(srv, l, srv.Serve)
}

// ServeHTTPS is ServeHTTP over TLS, see [http.Server.ServeTLS].
func (w *Worker) ServeHTTPS(srv *http.Server, l net.Listener, certFile, keyFile string) error {
	return w.serve(srv, l, func(l net.Listener) error { return srv.ServeTLS(l, certFile, keyFile) })
}

func (w *Worker) serve(srv *http.Server, l net.Listener, run func(net.Listener) error) error {
	t := &tracker{Listener: l, linger: w.linger, conns: map[*conn]struct{}{}, changed: make(chan struct{}, 1)}
	handler := srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-w.draining:
			rw.Header().Set("Connection", "close")
		default:
		}
		w.Served(1)
		handler.ServeHTTP(rw, r)
	})
	before := srv.ConnState
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if own := ofServer(c); own != nil {
			own.enter(s, overHTTP2(c))
		}
		if before != nil {
			before(c, s)
		}
	}
	served := make(chan error, 1)
	go func() { served <- run(t) }() // ends with l
	select {
	case err := <-served:
		return err
	case <-w.draining:
	}
	t.empty()
	l.Close()
	<-served
	t.drain()
	if err := srv.Shutdown(context.Background()); err != nil { // only its hooks remain
		return err
	}
	t.await(func(c *conn) bool { return true })
	return nil
}

// tracker knows every connection from its accept, before http.Server does.
type tracker struct {
	net.Listener
	linger  time.Duration
	changed chan struct{} // never closed; has a token when a connection has ended or was hijacked

	mu    sync.Mutex // guards all below, and the fields of its connections
	conns map[*conn]struct{}
	since time.Time // start of the drain; zero: not draining
}

func (t *tracker) Accept() (net.Conn, error) {
	nc, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, of: t, entered: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
	if !t.since.IsZero() {
		c.look(t.linger)
	}
	return c, nil
}

// maxEmpty limits the wait for an accept queue that never empties.
const maxEmpty = time.Second

// empty waits until the server has accepted what is in the accept queue: closing the
// socket would reset it. Under handoff the queue is already empty; without it, later
// connections are refused or reset, as with every server.
func (t *tracker) empty() {
	s, ok := t.Listener.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	for end := time.Now().Add(maxEmpty); time.Now().Before(end); {
		queued := 0
		raw.Control(func(fd uintptr) {
			// tcpi_unacked of a listening socket is the length of its queue.
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				queued = int(info.Unacked)
			}
		})
		if queued == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// drain waits until only hijacked connections are left.
func (t *tracker) drain() {
	t.mu.Lock()
	t.since = time.Now()
	for c := range t.conns {
		c.look(t.linger)
	}
	t.mu.Unlock()
	t.await(func(c *conn) bool { return c.state != http.StateHijacked })
}

// await waits until no connection that counts is left.
func (t *tracker) await(matters func(*conn) bool) {
	for {
		left := false
		t.mu.Lock()
		for c := range t.conns {
			left = left || matters(c)
		}
		t.mu.Unlock()
		if !left {
			return
		}
		<-t.changed
	}
}

func (t *tracker) notify() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// conn is an accepted connection. The fields are guarded by of.mu.
type conn struct {
	net.Conn
	of      *tracker
	state   http.ConnState
	entered time.Time // the state
	read    time.Time // time of the last read
	http2   bool
	looking bool // a check is scheduled
	quiet   bool // the last check found nothing
	began   bool // something was read since
}

// ofServer returns the tracked connection behind http.Server's.
func ofServer(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

func overHTTP2(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	return ok && t.ConnectionState().NegotiatedProtocol == "h2"
}

// SyscallConn is that of the accepted connection, for code that needs its peer.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// NetConn returns the connection that was accepted.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.of.mu.Lock()
		c.read, c.quiet = time.Now(), false
		if !c.began {
			// HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.4).
			c.began = true
			c.http2 = c.http2 || bytes.HasPrefix(b[:n], []byte("PRI "))
		}
		c.of.mu.Unlock()
	}
	return n, err
}

// ReadFrom keeps sendfile(2) and splice(2) in use.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(c.Conn, r)
}

func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	c.of.notify()
	return err
}

// enter records a change of state. The connection's goroutine calls it.
func (c *conn) enter(s http.ConnState, http2 bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.state, c.entered, c.http2, c.quiet = s, time.Now(), c.http2 || http2, false
	switch s {
	case http.StateHijacked:
		c.of.notify()
	case http.StateIdle:
		if !c.of.since.IsZero() {
			c.look(c.of.linger)
		}
	}
}

// look schedules a check of an idle connection. of.mu is held.
func (c *conn) look(after time.Duration) {
	if !c.looking && c.waits() {
		c.looking = true
		time.AfterFunc(after, c.closeIdle)
	}
}

// waits reports whether the connection waits for a request.
func (c *conn) waits() bool { return c.state == http.StateNew || c.state == http.StateIdle }

// closeIdle closes the connection if nothing has come for the linger.
func (c *conn) closeIdle() {
	c.of.mu.Lock()
	c.looking = false
	if _, live := c.of.conns[c]; !live || !c.waits() {
		c.of.mu.Unlock()
		return
	}
	last := c.of.since
	if c.entered.After(last) {
		last = c.entered
	}
	if c.read.After(last) && !c.http2 { // in HTTP/2, it may be a ping
		last = c.read
	}
	rest := time.Until(last.Add(c.of.linger))
	if rest <= 0 {
		// Two checks: what has just been read may not be recorded yet.
		was := c.quiet
		if c.quiet = !c.unread(); !c.quiet || !was {
			rest = time.Millisecond
		}
	}
	if rest > 0 {
		c.look(rest)
		c.of.mu.Unlock()
		return
	}
	c.of.mu.Unlock()
	c.Close()
}

// unread reports whether the receive buffer has data: closing would then reset the
// connection.
func (c *conn) unread() bool {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	raw.Control(func(fd uintptr) {
		n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return n > 0
}
