package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
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
	failed         map[string]int64 // by class
	reused         map[string]int64 // those of them on connections that had answered before
	samples        []string
	since          time.Time
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

const clients = 8

// asks makes an exchange with the program at an address. The conversation goes on with kept.
type asks func(addr string) (conversation, error)

// conversation is a client's connection.
type conversation interface {
	ask() error
	Close() error
}

// load starts the row's load: 8 clients that ask again as soon as they are answered, or, with kept,
// 2 ms later on the same connection. Nothing is asked twice.
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
	} else if kept {
		cfg.Mode = load.KeepAlive
	}
	if kept {
		cfg.Rate, cfg.Pause = 0, 2*time.Millisecond
	}
	return httpLoad{load.Start(cfg)}
}

type httpLoad struct{ run *load.Run }

func (l httpLoad) await(t *testing.T, n int64) {
	t.Helper()
	if !l.run.Await(n, patience) {
		t.Fatalf("%d requests are not answered within %v", n, patience)
	}
}

func (l httpLoad) stop() counts {
	r := l.run.Stop()
	c := counts{requests: r.Requests, since: time.Now().Add(-r.Elapsed)}
	for class, n := range r.Failed {
		c.add(string(class), n)
	}
	for k, n := range r.Kinds {
		if k.Reused {
			c.again(string(k.Class), n)
		}
	}
	for _, s := range r.Samples {
		c.samples = append(c.samples, s.String())
	}
	return c
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
	for range clients {
		l.wg.Go(func() { l.client(ctx, addr, dial, kept) })
	}
	return l
}

func (l *talk) client(ctx context.Context, addr string, dial asks, kept bool) {
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
		if c == nil {
			c, err = dial(addr)
		}
		if err == nil {
			err = c.ask()
		}
		l.count(err, answered)
		answered = err == nil
		if !kept || err != nil {
			end()
		}
		if kept {
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (l *talk) count(err error, reused bool) {
	l.mu.Lock()
	l.counts.requests++
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
