package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// counts is what clients have seen.
type counts struct {
	requests, lost int64
	kept           int64            // requests on connections that had answered before, or were there for a while
	late           int64            // of them those that were only there
	failed         map[string]int64 // by class
	reused         map[string]int64 // those of them on connections that had answered before
	samples        []string
	since          time.Time
	longest        time.Duration // good answer on a connection that had answered before
}

// merge adds what other clients have seen.
func (c *counts) merge(o counts) {
	c.requests += o.requests
	c.kept += o.kept
	c.late += o.late
	for class, n := range o.failed {
		c.add(class, n)
	}
	for class, n := range o.reused {
		c.again(class, n)
	}
	c.samples = append(c.samples, o.samples...)
	c.longest = max(c.longest, o.longest)
	if c.since.IsZero() || o.since.Before(c.since) {
		c.since = o.since
	}
}

// onReused are those on connections that had answered before: the others count as new ones.
func (c counts) onReused() counts {
	k := counts{requests: c.kept, late: c.late, samples: c.samples, since: c.since, longest: c.longest}
	for class, n := range c.reused {
		k.add(class, n)
	}
	return k
}

func (c counts) onNew() counts {
	k := counts{requests: c.requests - c.kept, since: c.since}
	for class, n := range c.failed {
		if n -= c.reused[class]; n > 0 {
			k.add(class, n)
			k.samples = c.samples
		}
	}
	return k
}

func (c *counts) add(class string, n int64) {
	if c.failed == nil {
		c.failed = map[string]int64{}
	}
	c.failed[class] += n
	c.lost += n
}

func (c *counts) again(class string, n int64) {
	if c.reused == nil {
		c.reused = map[string]int64{}
	}
	c.reused[class] += n
}

func (c counts) classes() string {
	var s []string
	for _, class := range slices.Sorted(maps.Keys(c.failed)) {
		s = append(s, fmt.Sprintf("%s %d", class, c.failed[class]))
	}
	if len(s) == 0 {
		return ""
	}
	return " (" + strings.Join(s, ", ") + ")"
}

func (c counts) losses() string { return number(c.lost) + c.classes() }

// running is a load.
type running interface {
	await(t *testing.T, n int64) // n requests more
	stop() counts
}

// clients make a connection for each request.
const clients = 8

// keepers keep theirs: 32 in all, who ask again after a pause. Slow ones read an answer 16 bytes at a time;
// late ones make a connection a while before they ask on it, once.
var keepers = []struct {
	clients           int
	pause, slow, late time.Duration
}{
	{clients: 4},
	{clients: 10, pause: 2 * time.Millisecond},
	{clients: 8, pause: 50 * time.Millisecond},
	{clients: 6, pause: 500 * time.Millisecond},
	{clients: 2, late: 200 * time.Millisecond},
	{clients: 2, pause: 20 * time.Millisecond, slow: 10 * time.Millisecond},
}

// exchanges are what they ask in turn.
func (r row) exchanges() []load.Request {
	get := load.Request{Method: "GET", Target: "/", Header: http.Header{"Host": {"x"}}, Want: 200}
	if r.getOnly {
		return []load.Request{get}
	}
	post := load.Request{Method: "POST", Target: "/", Header: http.Header{"Host": {"x"}, "Content-Type": {"text/plain"}}, Want: 200}
	little, much := post, post
	little.Body = []byte("hello world\n")
	much.Body = bytes.Repeat([]byte("0123456789abcde\n"), 1024)
	return []load.Request{get, little, get, much}
}

// asks makes an exchange with the program at an address. The conversation goes on with kept.
type asks func(addr string) (conversation, error)

// conversation is a client's connection.
type conversation interface {
	ask() error
	Close() error
}

// load starts the row's load: 8 clients that ask again as soon as they are answered, or, with kept,
// the keepers. Nothing is asked twice.
func (r row) load(t *testing.T, p place, kept bool) running {
	addr := "127.0.0.1:" + p.port
	if r.asks != nil {
		if r.kind == path {
			addr = p.sock
		}
		return talkTo(addr, r.asks, kept)
	}
	cfg := load.Config{Network: "tcp", Addr: addr, Clients: clients, Rate: *rate, Shed: *rate > 0}
	if r.protocol() != "" { // it is nginx that makes connections, or keeps them
		cfg.Addr = p.front(kept)
		cfg.Network, cfg.Mode = "unix", load.KeepAlive
	}
	if !kept {
		return httpLoad{runs: []*load.Run{load.Start(cfg)}}
	}
	cfg.Mode, cfg.Requests = load.KeepAlive, r.exchanges()
	l := httpLoad{front: r.protocol() != ""}
	for _, k := range keepers {
		cfg := cfg
		cfg.Clients, cfg.Pause, cfg.Slow = k.clients, k.pause, k.slow
		if k.pause > 5*time.Millisecond {
			cfg.Rate = 0 // it limits those who hardly pause
		}
		if cfg.Late = k.late; k.late > 0 {
			cfg.Rate, cfg.Mode = 0, load.New
		}
		l.runs = append(l.runs, load.Start(cfg))
	}
	return l
}

type httpLoad struct {
	runs  []*load.Run
	front bool // nginx keeps the connections: each request counts
}

func (l httpLoad) await(t *testing.T, n int64) {
	t.Helper()
	if !l.runs[0].Await(n, patience) {
		t.Fatalf("%d requests are not answered within %v", n, patience)
	}
}

func (l httpLoad) stop() (all counts) {
	results := make([]load.Result, len(l.runs))
	var wg sync.WaitGroup
	for i, run := range l.runs {
		wg.Go(func() { results[i] = run.Stop() })
	}
	wg.Wait()
	for i, r := range results {
		c := counts{requests: r.Requests, kept: r.Kept, since: time.Now().Add(-r.Elapsed)}
		if len(l.runs) == len(keepers) && keepers[i].slow == 0 {
			c.longest = r.Longest
		}
		if len(l.runs) == len(keepers) && keepers[i].late > 0 {
			c.late = r.Kept
		}
		for class, n := range r.Failed {
			c.add(string(class), n)
		}
		for k, n := range r.Kinds {
			if k.Reused {
				c.again(string(k.Class), n)
			}
		}
		if l.front {
			c.kept, c.reused = c.requests, c.failed
		}
		for _, s := range r.Samples {
			c.samples = append(c.samples, s.String())
		}
		all.merge(c)
	}
	return all
}

// talk is a load of conversations.
type talk struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	n      atomic.Int64
	mu     sync.Mutex // guards counts
	counts counts
}

func talkTo(addr string, dial asks, kept bool) *talk {
	ctx, cancel := context.WithCancel(context.Background())
	l := &talk{cancel: cancel}
	if !kept {
		for range clients {
			l.wg.Go(func() { l.client(ctx, addr, dial, false, 0) })
		}
		return l
	}
	for _, k := range keepers {
		for range k.clients { // the late ones ask without a pause
			l.wg.Go(func() { l.client(ctx, addr, dial, true, k.pause) })
		}
	}
	return l
}

func (l *talk) client(ctx context.Context, addr string, dial asks, kept bool, pause time.Duration) {
	var c conversation
	answered := false // on c
	end := func() {
		if c != nil {
			c.Close()
			c, answered = nil, false
		}
	}
	defer end()
	for ctx.Err() == nil {
		if c != nil && closed(c) {
			end()
		}
		var err error
		start := time.Now()
		if c == nil {
			c, err = dial(addr)
		}
		if err == nil {
			err = c.ask()
		}
		l.count(err, answered, time.Since(start))
		answered = err == nil
		if !kept || err != nil {
			end()
		}
		if kept && *rate > 0 {
			pause = max(pause, 2*time.Millisecond)
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

func (l *talk) count(err error, reused bool, took time.Duration) {
	l.mu.Lock()
	l.counts.requests++
	if reused {
		l.counts.kept++
		if err == nil {
			l.counts.longest = max(l.counts.longest, took)
		}
	}
	if err != nil {
		if reused {
			l.counts.again(classify(err), 1)
		}
		l.counts.add(classify(err), 1)
		if len(l.counts.samples) < 12 {
			l.counts.samples = append(l.counts.samples, err.Error())
		}
	}
	l.mu.Unlock()
	l.n.Add(1)
}

func (l *talk) await(t *testing.T, n int64) {
	t.Helper()
	want := l.n.Load() + n
	for deadline := time.After(patience); l.n.Load() < want; {
		select {
		case <-deadline:
			t.Fatalf("%d requests are not answered within %v", n, patience)
		case <-time.After(time.Millisecond):
		}
	}
}

func (l *talk) stop() counts {
	l.cancel()
	l.wg.Wait()
	return l.counts
}

// closed reports whether the server has closed an idle connection: any client notices.
func closed(c conversation) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil
	})
	return gone
}

func classify(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	}
	return "wrong"
}
