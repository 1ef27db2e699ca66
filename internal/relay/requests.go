package relay

import (
	"errors"
	"io"
	"os"
)

// requests passes what the client sends on, beginning with the request whose head is there.
func (x *exchange) requests(r *request) {
	defer close(x.read)
	defer close(x.queue)
	for x.take() {
		if r == nil {
			x.deadline(x.headTimeout)
			var err error
			if r, err = x.client.request(); err != nil {
				x.client.send(x.worker.c, len(x.client.buf))
				x.clientEnded(err)
				return
			}
			x.deadline(0)
		}
		if !x.request(r) {
			return
		}
		r = nil
		if err := x.client.await(); err != nil {
			x.clientEnded(err)
			return
		}
	}
}

// request passes one request on. It returns false when nothing is to follow it.
func (x *exchange) request(r *request) bool {
	select {
	case x.queue <- r:
	case <-x.done:
		return false
	}
	err := x.client.pass(x.worker.c, r.size, &r.body, x.complete)
	if err == errEndUnknown {
		if !x.openEnded() {
			return false
		}
		x.clientEnded(x.client.passAll(x.worker.c))
		return false
	}
	if err != nil {
		x.clientEnded(err)
		return false
	}
	if !r.switches {
		return true
	}
	select {
	case tunnel := <-r.tunnel:
		if tunnel {
			x.clientEnded(x.client.passAll(x.worker.c))
		}
		return !tunnel
	case <-x.done:
		return false
	}
}

// clientEnded has the worker see what the client's connection ended with: an end of what it
// sends, after which it may well wait for its answer, or a reset.
func (x *exchange) clientEnded(err error) {
	switch {
	case errors.As(err, new(writeError)): // the answer, or the worker's end, says why
	case err == nil || err == io.EOF:
		closeWrite(x.worker.c)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		reset(x.worker.c)
	}
}
