// Package load is a strict load generator for HTTP/1.1: it counts every
// response that was refused, reset, missing, late or wrong, and retries nothing.
//
// A server may say which generation answers (the header X-Generation); then a
// new connection that is answered by an older generation than the client has
// already seen counts as a failure too.
package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Class says how a request failed.
type Class string

// The classes, from the client's point of view.
const (
	Refused Class = "refused" // connect: ECONNREFUSED
	Reset   Class = "reset"   // ECONNRESET or EPIPE, in connect, write or read
	EOF     Class = "eof"     // closed before a whole response
	Timeout Class = "timeout" // no whole response in time
	Status  Class = "status"  // a response with another status than wanted
	Order   Class = "order"   // an older generation after a newer one
	Other   Class = "other"   // anything else, a malformed response among it
)

// Classes is every class in the order of printing.
var Classes = [...]Class{Refused, Reset, EOF, Timeout, Status, Order, Other}

// Mode says what becomes of a connection after a response.
type Mode int

const (
	// New makes a connection for each request.
	New Mode = iota
	// KeepAlive uses a connection until the server says that it closes it.
	KeepAlive
	// Mixed has both kinds of clients, half each.
	Mixed
)

// Config describes a load. The zero value of each field but Addr works.
type Config struct {
	Network string // "tcp" by default
	Addr    string
	Mode    Mode
	Clients int           // at once; 16 by default
	Pause   time.Duration // of each client between two requests
	Rate    float64       // requests a second, sent whether or not others have been answered (Mode New only); 0: each client sends when it has its answer
	Timeout time.Duration // for one request, 10 s by default
	Path    string        // "/" by default
	Want    int           // status, 200 by default
	Sources []net.IP      // client i connects from Sources[i mod len]; none: any
	// Observe, if not nil, is called for each good response, concurrently.
	Observe func(client int, header http.Header)
}

// Failure is one failed request, for the report.
type Failure struct {
	Class  Class
	At     time.Duration // since the start
	Client int
	Reused bool // the connection had already answered a request
	Local  string
	Err    error
}

func (f Failure) String() string {
	kind := "new connection"
	if f.Reused {
		kind = "reused connection"
	}
	return fmt.Sprintf("%s at %.3fs, client %d, %s from %s: %v", f.Class, f.At.Seconds(), f.Client, kind, f.Local, f.Err)
}

// Result is what a load has seen.
type Result struct {
	Requests    int64 // answered or failed
	Connections int64
	IdleClosed  int64 // kept connections that the server had closed before their next use: no failure
	Failed      map[Class]int64
	Samples     []Failure // the first few
	Elapsed     time.Duration
	Latency     *hdrhistogram.Histogram // µs, of good responses, the connect included
}

// Lost is the number of failures of all classes.
func (r Result) Lost() int64 {
	var n int64
	for _, v := range r.Failed {
		n += v
	}
	return n
}

func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests (%.0f/s) on %d connections, %d failed", r.Requests,
		float64(r.Requests)/r.Elapsed.Seconds(), r.Connections, r.Lost())
	for _, c := range Classes {
		if n := r.Failed[c]; n > 0 {
			fmt.Fprintf(&b, ", %s %d", c, n)
		}
	}
	fmt.Fprintf(&b, "; p50 %.2f p99 %.2f max %.1f ms",
		r.Quantile(50), r.Quantile(99), float64(r.Latency.Max())/1000)
	for _, f := range r.Samples {
		fmt.Fprintf(&b, "\n  %v", f)
	}
	return b.String()
}

// Quantile returns a latency in milliseconds.
func (r Result) Quantile(q float64) float64 { return float64(r.Latency.ValueAtQuantile(q)) / 1000 }

// Run is a load under way.
type Run struct {
	cfg    Config
	start  time.Time
	cancel context.CancelFunc
	wg     sync.WaitGroup

	requests, connections, idleClosed atomic.Int64

	mu      sync.Mutex // guards what follows: clients add, Stop reads
	failed  map[Class]int64
	samples []Failure
	latency *hdrhistogram.Histogram
}

const samplesMost = 12

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 120_000_000, 3) }

// Start begins a load; Stop ends it.
func Start(cfg Config) *Run {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&cfg.Clients, 16)
	def(&cfg.Want, http.StatusOK)
	if cfg.Network == "" {
		cfg.Network = "tcp"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Run{cfg: cfg, start: time.Now(), cancel: cancel, failed: map[Class]int64{}, latency: newHistogram()}
	if cfg.Rate > 0 {
		r.wg.Go(func() { r.paced(ctx) })
		return r
	}
	for i := range cfg.Clients {
		c := &client{run: r, id: i, keep: cfg.Mode == KeepAlive || cfg.Mode == Mixed && i%2 == 1, latency: newHistogram()}
		r.wg.Go(func() { c.loop(ctx) })
	}
	return r
}

// paced sends requests by the clock, each in a goroutine of its own.
func (r *Run) paced(ctx context.Context) {
	every := time.Duration(float64(time.Second) / r.cfg.Rate)
	inFlight := make(chan struct{}, 20_000)
	var wg sync.WaitGroup
	for i := 0; ctx.Err() == nil; i++ {
		due := r.start.Add(time.Duration(i) * every)
		if d := time.Until(due); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		inFlight <- struct{}{}
		wg.Go(func() {
			c := &client{run: r, id: i, generation: -1}
			t, ok := c.request(ctx)
			if ok {
				r.mu.Lock()
				r.latency.RecordValue(t.Microseconds())
				r.mu.Unlock()
			}
			c.close()
			<-inFlight
		})
	}
	wg.Wait()
}

// Requests is the number of requests so far.
func (r *Run) Requests() int64 { return r.requests.Load() }

// Await blocks until n more requests have been answered or have failed, or
// patience is over; it says which.
func (r *Run) Await(n int64, patience time.Duration) bool {
	want := r.requests.Load() + n
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.requests.Load() < want {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// Stop ends the load. Requests under way are finished, not cut.
func (r *Run) Stop() Result {
	r.cancel()
	r.wg.Wait()
	return Result{
		Requests: r.requests.Load(), Connections: r.connections.Load(), IdleClosed: r.idleClosed.Load(),
		Failed: r.failed, Samples: r.samples, Elapsed: time.Since(r.start), Latency: r.latency,
	}
}

type client struct {
	run        *Run
	id         int
	keep       bool
	conn       net.Conn
	in         *bufio.Reader
	used       int // responses on conn
	generation int // newest seen on a new connection; -1: not followed
	latency    *hdrhistogram.Histogram
}

func (c *client) loop(ctx context.Context) {
	defer c.close()
	for ctx.Err() == nil {
		if t, ok := c.request(ctx); ok {
			c.latency.RecordValue(t.Microseconds())
		}
		if c.run.cfg.Pause > 0 {
			select {
			case <-time.After(c.run.cfg.Pause):
			case <-ctx.Done():
			}
		}
	}
	c.run.mu.Lock()
	c.run.latency.Merge(c.latency)
	c.run.mu.Unlock()
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// request sends one and reads its answer; ok tells whether it was a good one.
func (c *client) request(ctx context.Context) (took time.Duration, ok bool) {
	start := time.Now()
	if c.conn != nil && c.closedWhileIdle() {
		c.run.idleClosed.Add(1)
		c.close()
	}
	reused := c.conn != nil
	class, err := c.exchange(start.Add(c.run.cfg.Timeout))
	c.run.requests.Add(1)
	if class == "" {
		return time.Since(start), true
	}
	f := Failure{Class: class, At: start.Sub(c.run.start), Client: c.id, Reused: reused, Err: err}
	if c.conn != nil {
		f.Local = c.conn.LocalAddr().String()
	}
	c.close()
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	c.run.failed[class]++
	if len(c.run.samples) < samplesMost {
		c.run.samples = append(c.run.samples, f)
	}
	return 0, false
}

// closedWhileIdle looks, without waiting, whether the server's FIN is here
// already: any client library notices that and takes another connection.
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

func (c *client) exchange(deadline time.Time) (Class, error) {
	cfg := &c.run.cfg
	fresh := c.conn == nil
	if fresh {
		if err := c.dial(deadline); err != nil {
			return classify(err), fmt.Errorf("connect: %w", err)
		}
	}
	c.conn.SetDeadline(deadline)
	connection := "close"
	if c.keep {
		connection = "keep-alive"
	}
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n", cfg.Path, connection)
	if err != nil {
		return classify(err), fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return classify(err), fmt.Errorf("read: %w", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return classify(err), fmt.Errorf("body: %w", err)
	}
	c.used++
	if resp.Close || !c.keep {
		defer c.close()
	}
	if resp.StatusCode != cfg.Want {
		return Status, errors.New(resp.Status)
	}
	if g := resp.Header.Get("X-Generation"); g != "" && fresh && c.generation >= 0 {
		n, err := strconv.Atoi(g)
		if err != nil || n < c.generation {
			return Order, fmt.Errorf("generation %s after %d", g, c.generation)
		}
		c.generation = n
	}
	if cfg.Observe != nil {
		cfg.Observe(c.id, resp.Header)
	}
	return "", nil
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
	if tcp, ok := conn.(*net.TCPConn); ok && c.run.cfg.Mode == New {
		// A closed loop of new connections would run out of ports: they
		// are reset at the end, by us, after the whole answer.
		tcp.SetLinger(0)
	}
	c.conn, c.used = conn, 0
	c.run.connections.Add(1)
	if c.in == nil {
		c.in = bufio.NewReader(conn)
	} else {
		c.in.Reset(conn)
	}
	return nil
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

// Spread returns the largest deviation from the mean, as a fraction of it.
func Spread(counts []int64) float64 {
	var sum int64
	for _, n := range counts {
		sum += n
	}
	mean := float64(sum) / float64(len(counts))
	return max(float64(slices.Max(counts))-mean, mean-float64(slices.Min(counts))) / mean
}
