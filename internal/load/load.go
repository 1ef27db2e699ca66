// Package load is a strict load generator for HTTP/1.1, or for lines that are
// echoed: it counts every response that was refused, reset, missing, late or wrong,
// and retries nothing.
//
// A server may report its generation (the header X-Generation); then a new connection
// that is answered by an older generation than the client has already seen is a failure,
// too.
package load

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Class is the kind of a failure.
type Class string

// The classes, from the client's point of view.
const (
	Refused Class = "refused" // connect: ECONNREFUSED
	Reset   Class = "reset"   // ECONNRESET or EPIPE, in connect, write or read
	EOF     Class = "eof"     // closed before a complete response
	Timeout Class = "timeout" // no complete response in time
	Status  Class = "status"  // a response with another status than wanted, another echo
	Order   Class = "order"   // an older generation after a newer one
	Other   Class = "other"   // anything else, for example a malformed response
	Inside  Class = "inside"  // according to Config.Inside
)

// Classes is every class in the order of printing.
var Classes = [...]Class{Refused, Reset, EOF, Timeout, Status, Order, Other, Inside}

// Mode is how connections are used.
type Mode int

const (
	// New makes a connection for each request.
	New Mode = iota
	// KeepAlive uses a connection until the server closes it.
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
	// Late is from a connect to the first request: the connection counts as one that is kept.
	Late time.Duration
	Slow time.Duration // before each read of at most 16 bytes: a client that reads slowly
	// Rate is the number of requests per second; 0: each client sends when it has its
	// response. In Mode New they are sent independently of other responses, else by
	// Clients connections in turn. Latency counts from when a request was due.
	Rate float64
	// Follow, with a Rate in Mode New: once a generation has answered one client, an
	// older one that answers a later connection of any other is a failure (Order).
	// Without a Rate each client looks at its own connections only.
	Follow bool
	// Shed, with a Rate, skips due requests while Clients requests are running, instead
	// of sending them late, so that the load does not grow on a busy machine.
	Shed    bool
	Timeout time.Duration // for one request, 10 s by default
	Part    string        // name of the first part
	Path    string        // "/" by default
	Want    int           // status, 200 by default
	// Requests are sent in turn, each connection beginning with the first; none: GET Path.
	Requests []Request
	// Echo sends lines instead, and expects each to be echoed.
	Echo    bool
	Sources []net.IP // client i connects from Sources[i mod len]; none: any
	// Observe, if not nil, is called for each good response, concurrently.
	Observe func(client int, header http.Header)
	// Inside, if not nil, is called at a failure, but for Order, on a connection with its local address,
	// and reports whether the connection was inside a killed process. It is called
	// concurrently. With Sources it is called for a connection that was not made, too: its
	// port is 0.
	Inside func(local string) bool
}

// Stage is how far a failed request had come.
type Stage string

// The stages, one after the other.
const (
	Connect Stage = "connect"
	Write   Stage = "write"
	Answer  Stage = "answer" // nothing of the answer had come
	Body    Stage = "body"   // part of it had
	Whole   Stage = "whole"  // all of it, and it was wrong
)

// Failure is one failed request, for the report.
type Failure struct {
	Class  Class
	At     time.Duration // since the start
	Client int
	Reused bool // the connection had already answered a request
	Stage  Stage
	Local  string
	Err    error
}

// Kind is what failures have in common.
type Kind struct {
	Class  Class
	Reused bool
	Stage  Stage
}

func (f Failure) String() string {
	kind := "new connection"
	if f.Reused {
		kind = "reused connection"
	}
	return fmt.Sprintf("%s at %.3fs, client %d, %s from %s: %v", f.Class, f.At.Seconds(), f.Client, kind, f.Local, f.Err)
}

// Result has the measurements of a load.
type Result struct {
	Requests    int64 // answered or failed
	Connections int64
	IdleClosed  int64 // kept connections that the server had closed before their next use: no failure
	Failed      map[Class]int64
	Kinds       map[Kind]int64
	Samples     []Failure // the first few
	Elapsed     time.Duration
	Kept        int64                   // requests on connections that had answered before, lost ones too
	Longest     time.Duration           // good response on such a connection, from when it was sent
	Latency     *hdrhistogram.Histogram // µs, of good responses, the connect included
}

func newResult() Result {
	return Result{Failed: map[Class]int64{}, Kinds: map[Kind]int64{}, Latency: NewLatency()}
}

// NewLatency is an empty histogram of latencies, in µs.
func NewLatency() *hdrhistogram.Histogram { return hdrhistogram.New(1, 120_000_000, 3) }

// Add adds the measurements of another load; Elapsed stays.
func (r *Result) Add(o Result) {
	r.Requests += o.Requests
	r.Connections += o.Connections
	r.IdleClosed += o.IdleClosed
	r.Kept += o.Kept
	r.Longest = max(r.Longest, o.Longest)
	for c, n := range o.Failed {
		r.Failed[c] += n
	}
	for k, n := range o.Kinds {
		r.Kinds[k] += n
	}
	r.Samples = append(r.Samples, o.Samples[:min(len(o.Samples), max(maxSamples-len(r.Samples), 0))]...)
	r.Latency.Merge(o.Latency)
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

// Run is a running load.
type Run struct {
	cfg    Config
	start  time.Time
	cancel context.CancelFunc
	wg     sync.WaitGroup

	requests atomic.Int64
	least    atomic.Int64 // generation that new connections must have
	part     atomic.Pointer[Part]

	mu    sync.Mutex // guards parts
	parts []*Part
}

// Part is an interval of a load. A request counts for the part in which it began.
type Part struct {
	Name string
	At   time.Duration // since the start
	mu   sync.Mutex    // guards seen: clients add, Stop reads
	seen Result
}

const maxSamples = 12

// Begin begins another part.
func (r *Run) Begin(name string) {
	p := &Part{Name: name, At: time.Since(r.start), seen: newResult()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.parts); n > 0 {
		r.parts[n-1].end(p.At)
	}
	r.parts = append(r.parts, p)
	r.part.Store(p)
}

func (p *Part) end(at time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Elapsed = at - p.At
}

func (p *Part) lost() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Lost()
}

// Result returns the measurements of a part, after the load was stopped.
func (p *Part) Result() Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// Least requires that later connections are answered by this generation (X-Generation),
// or a newer one.
func (r *Run) Least(generation int) { r.least.Store(int64(generation)) }

// follow is Least, but never for an older generation than before.
func (r *Run) follow(generation int64) {
	for {
		least := r.least.Load()
		if generation <= least || r.least.CompareAndSwap(least, generation) {
			return
		}
	}
}

// Count adds a failure that was seen elsewhere.
func (r *Run) Count(f Failure) {
	p := r.part.Load()
	f.At = time.Since(r.start)
	r.requests.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Requests++
	p.failed(f)
}

func (p *Part) failed(f Failure) {
	p.seen.Failed[f.Class]++
	p.seen.Kinds[Kind{f.Class, f.Reused, f.Stage}]++
	if len(p.seen.Samples) < maxSamples {
		p.seen.Samples = append(p.seen.Samples, f)
	}
}

// Failures is the number of failures so far, of all parts.
func (r *Run) Failures() (n int64) {
	for _, p := range r.Parts() {
		n += p.lost()
	}
	return n
}

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
	if len(cfg.Requests) == 0 {
		cfg.Requests = []Request{{Method: http.MethodGet, Target: cfg.Path, Header: http.Header{"Host": {"x"}}, Want: cfg.Want}}
	}
	cfg.Requests = slices.Clone(cfg.Requests)
	for i := range cfg.Requests {
		cfg.Requests[i].wire()
	}
	r := &Run{cfg: cfg, start: time.Now(), cancel: cancel}
	r.Begin(cfg.Part)
	if cfg.Rate > 0 && cfg.Mode == New {
		r.wg.Go(func() { r.paced(ctx) })
		return r
	}
	for i := range cfg.Clients {
		c := &client{run: r, id: i, keep: cfg.Mode == KeepAlive || cfg.Mode == Mixed && i%2 == 1}
		r.wg.Go(func() { c.loop(ctx) })
	}
	return r
}

// paced sends requests at the rate, each in a goroutine of its own.
func (r *Run) paced(ctx context.Context) {
	every := time.Duration(float64(time.Second) / r.cfg.Rate)
	most := 20_000
	if r.cfg.Shed {
		most = r.cfg.Clients
	}
	inFlight := make(chan struct{}, most)
	var wg sync.WaitGroup
	for i := 0; ctx.Err() == nil; i++ {
		due := r.start.Add(time.Duration(i) * every)
		if d := time.Until(due); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		if r.cfg.Shed && (len(inFlight) == most || time.Since(due) > every) {
			continue
		}
		inFlight <- struct{}{}
		wg.Go(func() {
			c := &client{run: r, id: i, sent: i, generation: -1}
			c.request(due)
			c.close()
			<-inFlight
		})
	}
	wg.Wait()
}

// Requests is the number of requests so far.
func (r *Run) Requests() int64 { return r.requests.Load() }

// Await blocks until n more requests have been answered or have failed, or
// limit is over; it says which.
func (r *Run) Await(n int64, limit time.Duration) bool {
	want := r.requests.Load() + n
	deadline := time.NewTimer(limit)
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

// Stop ends the load. Running requests are finished.
func (r *Run) Stop() Result {
	r.cancel()
	r.wg.Wait()
	all := newResult()
	all.Elapsed = time.Since(r.start)
	parts := r.Parts()
	parts[len(parts)-1].end(all.Elapsed)
	for _, p := range parts {
		all.Add(p.Result())
	}
	return all
}

// Parts returns the parts so far.
func (r *Run) Parts() []*Part {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.parts)
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
