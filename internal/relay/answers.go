package relay

import (
	"bytes"
	"errors"
)

// errNoAnswer: the worker closed the connection without one.
var errNoAnswer = errors.New("no answer")

// answers passes answers on until the last one has been given.
func (x *exchange) answers() (answered int, err error) {
	for r := range x.queue {
		end, err := x.answer(r, answered+1)
		if err != nil {
			return answered, err
		}
		if answered++; end {
			break
		}
	}
	return answered, nil
}

// answer passes the answer to request n on, and says whether it is the last.
func (x *exchange) answer(r *request, n int) (last bool, err error) {
	for {
		size, err := x.worker.head(mayBeAnswer)
		if err != nil && len(x.worker.buf) == 0 {
			return true, errors.Join(errNoAnswer, err)
		}
		a, ok := parseAnswer(x.worker.buf[:size], r.method)
		switch {
		case !ok:
			// No HTTP/1, or no end of a head: the worker's end is its end.
			x.noMore()
			return true, x.worker.passAll(x.client.c)
		case a.tunnel:
			x.tunnelled()
			r.tunnel <- true
			if err := x.worker.passAll(x.client.c); err != nil {
				return true, err
			}
			closeWrite(x.client.c)
			return true, nil
		case a.interim:
			if err := x.worker.send(x.client.c, size); err != nil {
				return true, writeError{err}
			}
			continue
		}
		last = a.last || a.body.kind == untilEnd || x.last(n)
		if r.tunnel <- false; last && !a.last {
			size = x.worker.replace(size, a.head.closing())
		}
		err = x.worker.pass(x.client.c, size, &a.body, func(bool) {})
		if err == errEndUnknown {
			x.noMore()
			last, err = true, x.worker.passAll(x.client.c)
		}
		return last, err
	}
}

// mayBeAnswer tells whether an answer of HTTP/1 may begin so.
func mayBeAnswer(b []byte) bool {
	const version = "HTTP/1."
	return bytes.HasPrefix([]byte(version), b[:min(len(b), len(version))])
}
