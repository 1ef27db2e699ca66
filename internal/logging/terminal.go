package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"handoff/internal/events"
	"handoff/internal/tail"
)

// people writes text for people. A start that fails like the one before is reported as the
// same. On a terminal, unless the level is debug, a generation is one line instead of four
// for each worker: the usual steps of a worker are left out, failures are not.
type people struct {
	slog.Handler
	tty   bool
	least slog.Leveler
	seen  *seen
}

// seen is what was shown. All handlers derived from one share it.
type seen struct {
	mu         sync.Mutex     // guards all below, for the time of a line
	lost       map[int64]bool // slots of which it was said that they have lost their worker
	generation int64          // of which so many failed starts of a slot were shown
	failures   int64
}

func newPeople(h slog.Handler, tty bool, least slog.Leveler) *people {
	return &people{h, tty, least, &seen{lost: map[int64]bool{}}}
}

func (h *people) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &people{h.Handler.WithAttrs(attrs), h.tty, h.least, h.seen}
}

func (h *people) WithGroup(name string) slog.Handler {
	return &people{h.Handler.WithGroup(name), h.tty, h.least, h.seen}
}

func (h *people) Handle(ctx context.Context, r slog.Record) error {
	e := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool {
		e[a.Key] = a.Value
		return true
	})
	brief := h.tty && h.least.Level() > slog.LevelDebug
	if brief && !h.seen.shows(r.Level, e) {
		return nil
	}
	r = again(r, e)
	if brief {
		r = shorter(r, e)
	}
	return h.Handler.Handle(ctx, r)
}

func number(e map[string]slog.Value, key string) int64 {
	if v := e[key]; v.Kind() == slog.KindInt64 {
		return v.Int64()
	}
	return 0
}

func is(e map[string]slog.Value, key string) bool {
	v := e[key]
	return v.Kind() == slog.KindBool && v.Bool()
}

func event(e map[string]slog.Value) string {
	if v := e["event"]; v.Kind() == slog.KindString {
		return v.String()
	}
	return ""
}

// shows reports whether a line is for a terminal.
func (s *seen) shows(level slog.Level, e map[string]slog.Value) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := number(e, "slot")
	switch event(e) {
	case events.WorkerStarted, events.WorkerDraining, events.WorkerShutdown:
		return level > slog.LevelInfo
	case events.WorkerReady:
		lost := s.lost[slot]
		delete(s.lost, slot)
		return lost
	case events.ClusterStarted, events.ClusterReloaded:
		clear(s.lost)
	case events.WorkerLeaving, events.WorkerRecycled, events.WorkerHung:
		s.lost[slot] = true
	case events.WorkerCrashed:
		s.lost[slot] = true
		gen, n := number(e, "generation"), number(e, "failures")
		if is(e, "same") && gen == s.generation && n <= s.failures {
			return false // of another slot, in the same round
		}
		s.generation, s.failures = gen, n
	}
	return true
}

// rewritten is a record with another message, and without some attributes.
func rewritten(r slog.Record, message string, keep func(slog.Attr) (slog.Attr, bool)) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a, ok := keep(a); ok {
			out.AddAttrs(a)
		}
		return true
	})
	return out
}

// again does not repeat what a failed start of the same generation has said before.
func again(r slog.Record, e map[string]slog.Value) slog.Record {
	if event(e) != events.WorkerCrashed || e["failures"].Kind() != slog.KindInt64 {
		return r
	}
	message, same := r.Message, is(e, "same")
	if n := number(e, "failures"); same {
		message += fmt.Sprintf("; the same again (%d", n)
		if most := number(e, "max_failures"); most > 0 {
			message += fmt.Sprintf(" of %d", most)
		}
		message += ")"
	}
	return rewritten(r, message, func(a slog.Attr) (slog.Attr, bool) {
		switch a.Key {
		case "failures", "max_failures", "same":
			return a, false
		case "stderr":
			return a, !same
		}
		return a, true
	})
}

// shorter is a line for a terminal: a generation in words, and of a worker's last lines
// the one that says why, since it has written them there itself.
func shorter(r slog.Record, e map[string]slog.Value) slog.Record {
	if name := event(e); name == events.ClusterStarted || name == events.ClusterReloaded {
		message := fmt.Sprintf("Generation %d serves: %s, %s", number(e, "generation"), plural(number(e, "workers"), "worker"), took(e["after"]))
		if at := e["addresses"]; at.Kind() == slog.KindString && at.String() != "" {
			message += ", on " + strings.ReplaceAll(at.String(), " ", ", ")
		}
		return rewritten(r, message, func(a slog.Attr) (slog.Attr, bool) { return a, a.Key == "event" })
	}
	if v := e["stderr"]; v.Kind() == slog.KindString {
		return rewritten(r, r.Message, func(a slog.Attr) (slog.Attr, bool) {
			if a.Key == "stderr" {
				a = slog.String(a.Key, tail.Gist(strings.Split(v.String(), "\n")))
			}
			return a, true
		})
	}
	return r
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// took is a duration for people.
func took(v slog.Value) string {
	if v.Kind() != slog.KindDuration {
		return v.String()
	}
	switch d := v.Duration(); {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}
