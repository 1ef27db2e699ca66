package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// said logs two generations, a crash, and a start that fails over and over, and returns
// the lines.
func said(tty bool, level slog.Level) string {
	var b bytes.Buffer
	text := slog.NewTextHandler(&b, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "event" {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(newPeople(text, tty, level))
	log.Info("Worker starts", "event", "worker.started", "slot", 0)
	log.Info("Generation serves", "event", "cluster.started", "generation", 1, "workers", 2, "after", 1234*time.Millisecond, "addresses", "a:1 b:2")
	log.Info("Worker serves", "event", "worker.ready", "slot", 0)
	log.Info("Worker serves", "event", "worker.ready", "slot", 1)
	log.Error("Worker crashed: x", "event", "worker.crashed", "slot", 1, "stderr", "a\nError: b\n  c")
	log.Info("Worker serves", "event", "worker.ready", "slot", 1, "after", time.Second)
	log.Info("Worker drains", "event", "worker.draining", "slot", 0)
	log.Info("Worker ended", "event", "worker.shutdown", "slot", 0)
	for n := 1; n <= 2; n++ {
		for slot := range 2 {
			log.Error("Worker crashed: x", "event", "worker.crashed", "slot", slot, "generation", 2, "failures", n, "max_failures", 2, "same", n > 1 || slot > 0, "stderr", "Error: d")
		}
	}
	log.Warn("Worker stalled", "event", "worker.stalled", "slot", 0)
	log.Info("Reloaded", "event", "cluster.reloaded", "generation", 3, "workers", 1, "after", 12*time.Millisecond, "addresses", "")
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "msg=", "")
}

// On a terminal a generation is a line; what happens to a worker is told, with the one line
// that says why; a failed start is not told again for each slot.
func TestTerminal(t *testing.T) {
	want := `"Generation 1 serves: 2 workers, 1.2 s, on a:1, b:2"
"Worker crashed: x" slot=1 stderr="Error: b"
"Worker serves" slot=1 after=1s
"Worker crashed: x" slot=0 generation=2 stderr="Error: d"
"Worker crashed: x; the same again (2 of 2)" slot=0 generation=2
"Worker stalled" slot=0
"Generation 3 serves: 1 worker, 12 ms"`
	if got := said(true, slog.LevelInfo); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// Elsewhere, and with --log-level debug, every line is there.
	for _, got := range []string{said(false, slog.LevelInfo), said(true, slog.LevelDebug)} {
		if n := strings.Count(got, "\n"); n != 13 || !strings.Contains(got, `stderr="a\nError: b\n  c"`) || strings.Count(got, "the same again") != 3 || strings.Contains(got, "failures=") {
			t.Errorf("%d\n%s", n, got)
		}
	}
}
