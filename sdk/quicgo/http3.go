package quicgo

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"handoff/worker"
)

// How long a drain waits for handshakes in progress: quic-go ends them after 10 seconds.
// Without handoff new ones still begin.
const (
	maxHandshakes      = 11 * time.Second
	maxHandshakesAlone = time.Second
	// The GOAWAY is sent before idle connections are closed.
	minLinger = 200 * time.Millisecond
)

// ServeHTTP3 serves HTTP/3 on tr.Conn until the worker drains, then drains, and returns nil
// when the last connection has ended. It owns srv and tr, and closes tr.Conn. tr has the ids
// of [ConnectionIDs], unless it has a generator already.
//
// In the drain:
//
//   - handshakes in progress are completed, which [http3.Server.Shutdown] alone would refuse;
//   - each client is told by a GOAWAY to begin a new connection for its next request.
//     Requests in progress are finished; what a client has sent meanwhile is rejected
//     (H3_REQUEST_REJECTED), so that it knows that it may send it again, as all do;
//   - a connection without requests that its client does not close is closed after
//     --keepalive-linger;
//   - streams that a handler has taken over ([http3.HTTPStreamer]) are waited for. Close them
//     when [worker.Worker.Draining] is closed.
//
// Requests are counted for --max-requests, see [worker.Worker.Served]. No request is cut
// off: handoff enforces --drain-timeout; without handoff, a second signal ends the process.
func ServeHTTP3(w *worker.Worker, srv *http3.Server, tr *quic.Transport) error {
	if srv.TLSConfig == nil {
		return errors.New("quicgo: cannot serve HTTP/3: srv.TLSConfig is not set")
	}
	if tr.ConnectionIDGenerator == nil {
		tr.ConnectionIDGenerator = ConnectionIDs(w)
	}
	t := &tracker{conns: map[*conn]struct{}{}, changed: make(chan struct{}, 1)}
	t.follow(w, srv, tr)
	cfg := &quic.Config{Allow0RTT: true}
	if srv.QUICConfig != nil {
		cfg = srv.QUICConfig.Clone()
	}
	cfg.EnableDatagrams = cfg.EnableDatagrams || srv.EnableDatagrams
	defer tr.Conn.Close()
	ln, err := tr.ListenEarly(http3.ConfigureTLSConfig(srv.TLSConfig), cfg)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeListener(ln) }() // ends with the listener, or by Shutdown
	select {
	case err := <-served:
		tr.Close()
		return err
	case <-w.Draining():
	}
	t.handshakes(w)
	t.closeIdle(w.Linger())
	err = srv.Shutdown(context.Background())
	<-served
	return errors.Join(err, ln.Close(), tr.Close())
}

// tracker knows every connection from its first packet.
type tracker struct {
	changed chan struct{} // never closed; has a token when a connection is served, or has ended

	mu     sync.Mutex // guards all below, and the fields of its connections
	conns  map[*conn]struct{}
	linger time.Duration // of idle connections; 0: it does not drain
}

// conn is a connection, from its first packet on.
type conn struct {
	of       *tracker
	quic     *quic.Conn // nil: the handshake is not far enough for a request
	requests int        // in progress
	taken    bool       // a handler has taken over a stream: who knows when that ends
	idle     *time.Timer
}

type connKey struct{}

// follow has a server tell the tracker of connections and requests.
func (t *tracker) follow(w *worker.Worker, srv *http3.Server, tr *quic.Transport) {
	before := tr.ConnContext
	tr.ConnContext = func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		c := &conn{of: t}
		if before != nil {
			var err error
			if ctx, err = before(ctx, info); err != nil {
				return ctx, err
			}
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.conns[c] = struct{}{}
		context.AfterFunc(ctx, c.ended)
		return context.WithValue(ctx, connKey{}, c), nil
	}
	accepted := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, q *quic.Conn) context.Context {
		if c := connOf(ctx); c != nil {
			c.serves(q)
		}
		if accepted != nil {
			return accepted(ctx, q)
		}
		return ctx
	}
	handler := srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.Served(1)
		c := connOf(r.Context())
		if c == nil {
			handler.ServeHTTP(rw, r)
			return
		}
		c.count(1)
		defer c.count(-1)
		if all, ok := rw.(responseWriter); ok {
			rw = writer{all, c}
		} else {
			c.take()
		}
		handler.ServeHTTP(rw, r)
	})
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// handshakes waits until every connection that has begun is the server's, or has ended:
// Shutdown would refuse the others. Nothing comes from new clients any more.
func (t *tracker) handshakes(w *worker.Worker) {
	limit := maxHandshakes
	if !w.Managed() {
		limit = maxHandshakesAlone
	}
	timeout := time.After(limit)
	for t.beginning() {
		select {
		case <-t.changed:
		case <-timeout:
			return
		}
	}
}

func (t *tracker) beginning() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		if c.quic == nil {
			return true
		}
	}
	return false
}

// closeIdle closes connections that are without a request for that long.
func (t *tracker) closeIdle(linger time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.linger = max(linger, minLinger)
	for c := range t.conns {
		c.rest()
	}
}

func (t *tracker) notify() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (c *conn) ended() {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	if c.idle != nil {
		c.idle.Stop()
	}
	c.of.mu.Unlock()
	c.of.notify()
}

func (c *conn) serves(q *quic.Conn) {
	c.of.mu.Lock()
	c.quic = q
	c.rest()
	c.of.mu.Unlock()
	c.of.notify()
}

func (c *conn) count(n int) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.requests += n
	c.rest()
}

func (c *conn) take() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.taken = true
	c.rest()
}

// rest starts the time of an idle connection, in a drain. What a handler has written leaves
// in that time: quic-go has at most a packet of it when it returns. of.mu is held.
func (c *conn) rest() {
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.of.linger == 0 || c.quic == nil || c.requests > 0 || c.taken {
		return
	}
	c.idle = time.AfterFunc(c.of.linger, func() {
		c.of.mu.Lock()
		busy := c.requests > 0 || c.taken
		c.of.mu.Unlock()
		if !busy {
			c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		}
	})
}

// responseWriter is all that http3's has.
type responseWriter interface {
	http.ResponseWriter
	http.Flusher
	http3.HTTPStreamer
	http3.Settingser
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// writer notices that a handler takes over its stream.
type writer struct {
	responseWriter
	conn *conn
}

func (w writer) HTTPStream() (*http3.Stream, error) {
	s, err := w.responseWriter.HTTPStream()
	if err == nil {
		w.conn.take()
	}
	return s, err
}
