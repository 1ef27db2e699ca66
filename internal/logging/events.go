package logging

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
)

// Events has the last lines of a log as JSON, independent of the log's format, for later
// requests and followers. It is safe for concurrent use.
type Events struct {
	// Heard is called with each line; it must not block, nor keep the line. Set it before
	// the first.
	Heard func(line []byte)

	mu    sync.Mutex // guards all below
	last  [][]byte
	size  int // of last, in bytes
	heard map[chan []byte]struct{}
}

// maxEvents is how many lines are kept, and maxSize how many bytes; maxFollow is how many
// lines a follower may be behind before it is disconnected.
const (
	maxEvents = 500
	maxSize   = 512 << 10
	maxFollow = 1000
)

// Write takes one line, of a slog.JSONHandler.
func (e *Events) Write(line []byte) (int, error) {
	n := len(line)
	line = bytes.Clone(line)
	if e.Heard != nil {
		e.Heard(line)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.size = append(e.last, line), e.size+len(line)
	for len(e.last) > maxEvents || e.size > maxSize && len(e.last) > 1 {
		e.size -= len(e.last[0])
		e.last = slices.Delete(e.last, 0, 1)
	}
	for ch := range e.heard {
		select {
		case ch <- line:
		default:
			delete(e.heard, ch)
			close(ch)
		}
	}
	return n, nil
}

// Last returns the last n lines.
func (e *Events) Last(n int) [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.last[max(0, len(e.last)-n):])
}

// Follow returns the last n lines and a channel of new ones, which is closed for a reader
// that is too slow. stop ends it.
func (e *Events) Follow(n int) (last [][]byte, lines <-chan []byte, stop func()) {
	ch := make(chan []byte, maxFollow)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard == nil {
		e.heard = map[chan []byte]struct{}{}
	}
	e.heard[ch] = struct{}{}
	return slices.Clone(e.last[max(0, len(e.last)-n):]), ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.heard, ch)
	}
}

// both writes each record to two handlers.
type both struct{ a, b slog.Handler }

func (h both) Enabled(ctx context.Context, l slog.Level) bool {
	return h.a.Enabled(ctx, l) || h.b.Enabled(ctx, l)
}

func (h both) Handle(ctx context.Context, r slog.Record) error {
	if h.b.Enabled(ctx, r.Level) {
		h.b.Handle(ctx, r.Clone())
	}
	if h.a.Enabled(ctx, r.Level) {
		return h.a.Handle(ctx, r)
	}
	return nil
}

func (h both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{h.a.WithAttrs(attrs), h.b.WithAttrs(attrs)}
}

func (h both) WithGroup(name string) slog.Handler {
	return both{h.a.WithGroup(name), h.b.WithGroup(name)}
}
