package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

type client struct {
	run        *Run
	id         int
	keep       bool
	conn       net.Conn
	in         *bufio.Reader
	used       int // responses on conn
	sent       int // requests
	generation int // newest seen on a new connection; -1: not followed
	least      int // generation that this connection must have
}

func (c *client) loop(ctx context.Context) {
	defer c.close()
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	due, every := c.run.start, time.Duration(0)
	if cfg := c.run.cfg; cfg.Rate > 0 {
		every = time.Duration(float64(time.Second) * float64(cfg.Clients) / cfg.Rate)
		due = due.Add(every * time.Duration(c.id) / time.Duration(cfg.Clients))
	}
	for ctx.Err() == nil {
		if every == 0 {
			due = time.Now()
		} else if d := time.Until(due); d > 0 {
			if wait(d); ctx.Err() != nil {
				return
			}
		}
		c.request(due)
		due = due.Add(every)
		if now := time.Now(); c.run.cfg.Shed && due.Before(now) {
			due = now
		}
		if c.run.cfg.Pause > 0 {
			wait(c.run.cfg.Pause)
		}
	}
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// request sends a due request, and reads its response.
func (c *client) request(due time.Time) {
	part := c.run.part.Load()
	start := time.Now()
	idleClosed := c.conn != nil && c.closedWhileIdle()
	if idleClosed {
		c.close()
	}
	fresh := c.conn == nil
	if late := c.run.cfg.Late; fresh && late > 0 && c.dial(start.Add(c.run.cfg.Timeout)) == nil {
		<-time.After(late)
		start, due = time.Now(), time.Now()
		if fresh = c.closedWhileIdle(); fresh {
			idleClosed = true
			c.close()
		}
	}
	class, stage, err := c.exchange(start.Add(c.run.cfg.Timeout))
	end := time.Now()
	took := end.Sub(due)
	f := Failure{Class: class, At: start.Sub(c.run.start), Client: c.id, Reused: !fresh, Stage: stage, Err: err}
	if class != "" {
		f.Local = c.local()
	}
	if f.Local != "" && class != Order { // an answer by an older one is no loss inside a dead one
		if inside := c.run.cfg.Inside; inside != nil && inside(f.Local) {
			f.Class = Inside
		}
	}
	if class != "" {
		c.close()
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	part.seen.Requests++
	if fresh && stage != Connect {
		part.seen.Connections++
	}
	if idleClosed {
		part.seen.IdleClosed++
	}
	if !fresh {
		part.seen.Kept++
		if class == "" {
			part.seen.Longest = max(part.seen.Longest, end.Sub(start))
		}
	}
	if class == "" {
		part.seen.Latency.RecordValue(took.Microseconds())
	} else {
		part.failed(f)
	}
	c.run.requests.Add(1)
}

// local is the client's address; of a connection that was not made, with port 0, and only
// if it has one of its own.
func (c *client) local() string {
	if c.conn != nil {
		return c.conn.LocalAddr().String()
	}
	if n := len(c.run.cfg.Sources); n > 0 {
		return net.JoinHostPort(c.run.cfg.Sources[c.id%n].String(), "0")
	}
	return ""
}

// closedWhileIdle checks, without blocking, whether the server has closed the connection:
// any client library notices that and uses another one.
func (c *client) closedWhileIdle() bool {
	sc, ok := c.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil
	})
	return closed
}

// exchange sends the next request; stage is how far it came.
func (c *client) exchange(deadline time.Time) (class Class, stage Stage, err error) {
	cfg := &c.run.cfg
	fresh := c.conn == nil
	if fresh {
		c.least = int(c.run.least.Load())
		if err := c.dial(deadline); err != nil {
			return classify(err), Connect, fmt.Errorf("connect: %w", err)
		}
	}
	c.conn.SetDeadline(deadline)
	c.sent++
	if cfg.Echo {
		return c.echo()
	}
	req := &cfg.Requests[(c.sent-1)%len(cfg.Requests)]
	wire := req.close
	if c.keep {
		wire = req.keep
	}
	if _, err := c.conn.Write(wire); err != nil {
		return classify(err), Write, fmt.Errorf("write: %w", err)
	}
	if _, err := c.in.Peek(1); err != nil {
		return classify(err), Answer, fmt.Errorf("read: %w", err)
	}
	resp, err := final(c.in, req.Method)
	if err != nil {
		return classify(err), Body, fmt.Errorf("read: %w", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return classify(err), Body, fmt.Errorf("body: %w", err)
	}
	c.used++
	if resp.Close || !c.keep {
		defer c.close()
	}
	if resp.StatusCode != req.Want {
		return Status, Whole, errors.New(resp.Status)
	}
	if g := resp.Header.Get("X-Generation"); g != "" && fresh {
		n, err := strconv.Atoi(g)
		if least := max(c.generation, c.least); (least > 0 || c.generation == 0) && (err != nil || n < least) {
			return Order, Whole, fmt.Errorf("generation %s after %d", g, least)
		}
		if c.generation >= 0 {
			c.generation = n
		} else if cfg.Follow {
			c.run.follow(int64(n))
		}
	}
	if cfg.Observe != nil {
		cfg.Observe(c.id, resp.Header)
	}
	return "", Whole, nil
}

// echo sends a line and expects it back.
func (c *client) echo() (class Class, stage Stage, err error) {
	line := fmt.Appendf(nil, "handoff %d %d\n", c.id, c.sent)
	if _, err := c.conn.Write(line); err != nil {
		return classify(err), Write, fmt.Errorf("write: %w", err)
	}
	if _, err := c.in.Peek(1); err != nil {
		return classify(err), Answer, fmt.Errorf("read: %w", err)
	}
	back := make([]byte, len(line))
	if _, err := io.ReadFull(c.in, back); err != nil {
		return classify(err), Body, fmt.Errorf("read: %w", err)
	}
	c.used++
	if !c.keep {
		defer c.close()
	}
	if !bytes.Equal(back, line) {
		return Status, Whole, fmt.Errorf("%q came back for %q", back, line)
	}
	return "", Whole, nil
}

func (c *client) dial(deadline time.Time) error {
	cfg := &c.run.cfg
	d := net.Dialer{Deadline: deadline}
	if n := len(cfg.Sources); n > 0 {
		d.LocalAddr = &net.TCPAddr{IP: cfg.Sources[c.id%n]}
	}
	conn, err := d.Dial(cfg.Network, cfg.Addr)
	if err != nil {
		return err
	}
	if tcp, ok := conn.(*net.TCPConn); ok && c.run.cfg.Mode == New && !cfg.Echo {
		// A closed loop of new connections would run out of ports: they
		// are reset at the end, by the client, after the complete response.
		tcp.SetLinger(0)
	}
	c.conn, c.used = conn, 0
	if cfg.Slow > 0 {
		c.in = bufio.NewReaderSize(slowly{conn, cfg.Slow}, 16)
	} else if c.in == nil {
		c.in = bufio.NewReader(conn)
	} else {
		c.in.Reset(conn)
	}
	return nil
}

// slowly waits before each read.
type slowly struct {
	net.Conn
	pause time.Duration
}

func (s slowly) Read(b []byte) (int, error) {
	<-time.After(s.pause)
	return s.Conn.Read(b)
}

func classify(err error) Class {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EOF
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return Timeout
	}
	return Other
}
