// Package relay answers the requests that come on a connection whose program has
// closed it while somebody else held it: through a connection of its own to who
// serves the address now, with Connection: close on the last answer.
//
//	client ══ bytes of requests, as they are ═══════════════════════════▶ worker
//	client ◀══ bytes of answers; in the last one's head Connection: close ══ worker
//
// It is no proxy, and net/http has no part in it: that would write names of headers in
// its own case and order, chunk bodies anew, add and drop headers, refuse what the
// program takes. Here each client's connection has one connection to a worker, used for
// nothing else, and whatever comes on one is written to the other, byte for byte.
// Requests and answers are only watched, to know where they end. So two ideas of where a
// request ends can do no harm: there is nobody else's request that could be taken for its
// rest, and nobody who relies on what was understood here. A request whose end is not
// beyond doubt (Content-Length beside chunked, say) is passed on like others, as the last
// one: what the program makes of it is the program's.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// Server answers on connections that are given to it.
type Server struct {
	// Dial connects to who serves the address now that the client of c had connected to.
	Dial func(ctx context.Context, c net.Conn) (net.Conn, error)
	// HeadTimeout is how long a client may take for the head of a request, from its first
	// byte on. 0: 10 s.
	HeadTimeout time.Duration
	// DialTimeout is how long a worker may take to be connected to. 0: 10 s.
	DialTimeout time.Duration
}

// Outcome is what became of a connection.
type Outcome struct {
	Answered int   // requests that were answered to the end, by 101 too
	Err      error // why it ended before its last request had been answered; nil: it did not
}

const (
	defaultTimeout = 10 * time.Second
	// A client that has its last answer closes. Until it does, what it still sends is read,
	// so that no reset overtakes the answer; not for longer than this.
	lingerTimeout = time.Second
	// How long nothing may come of a request's body whose answer is there already.
	uploadTimeout = 30 * time.Second
)

// errHead: the client was too slow, or left, before its first request was there.
var errHead = errors.New("no whole request")

// Serve answers the requests that are there on c, and those that follow before the last
// of these is answered, and closes it. It owns c.
func (s *Server) Serve(c net.Conn) Outcome {
	defer c.Close()
	client := &stream{c: c}
	c.SetReadDeadline(time.Now().Add(s.headTimeout()))
	head, err := client.request()
	if err != nil {
		return Outcome{Err: errors.Join(errHead, err)}
	}
	c.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(context.Background(), orDefault(s.DialTimeout))
	w, err := s.Dial(ctx, c)
	cancel()
	if err != nil {
		return Outcome{Err: err}
	}
	defer w.Close()
	x := &exchange{
		client: client, worker: &stream{c: w}, headTimeout: s.headTimeout(),
		queue: make(chan *request, 16), done: make(chan struct{}), read: make(chan struct{}), turn: turn{from: c},
	}
	go x.requests(head) // ends when its connections are closed, or done is
	answered, err := x.answers()
	if err != nil {
		// An answer that has not been given to its end ends as the worker's end did.
		x.abort(err)
	} else {
		x.finish(answered)
	}
	close(x.done)
	return Outcome{Answered: answered, Err: err}
}

func (s *Server) headTimeout() time.Duration { return orDefault(s.HeadTimeout) }

func orDefault(d time.Duration) time.Duration {
	if d == 0 {
		return defaultTimeout
	}
	return d
}

// exchange is one client's connection and one worker's. requests (a goroutine) reads of
// the client and writes to the worker, answers the other way.
type exchange struct {
	client, worker *stream
	headTimeout    time.Duration
	queue          chan *request // of those whose answers are awaited; closed by requests
	done           chan struct{} // closed by Serve, at its end
	read           chan struct{} // closed by requests, at its end
	turn
}

// abort closes both connections. Who is left sees the end that the other one has had.
func (x *exchange) abort(err error) {
	switch {
	case errors.As(err, new(writeError)):
		reset(x.worker.c)
	case isReset(err):
		reset(x.client.c)
	}
	x.client.c.Close()
	x.worker.c.Close()
	<-x.read
}

// finish closes after the last answer: first the rest of its request passes, which the
// program would have read too.
func (x *exchange) finish(answered int) {
	x.stop(answered)
	tick := time.NewTicker(uploadTimeout)
	defer tick.Stop()
	for moved := x.client.moved.Load(); ; moved = x.client.moved.Load() {
		select {
		case <-x.read:
		case <-tick.C:
			if x.client.moved.Load() != moved {
				continue
			}
			x.client.c.Close()
			<-x.read
			return
		}
		break
	}
	x.worker.c.Close()
	closeWrite(x.client.c)
	x.client.c.SetReadDeadline(time.Now().Add(lingerTimeout))
	io.Copy(io.Discard, onlyReader{x.client.c})
}

// onlyReader keeps io.Copy from splicing into what is no descriptor.
type onlyReader struct{ io.Reader }
