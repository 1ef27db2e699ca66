package logging

import (
	"fmt"
	"log/slog"
	"testing"
)

func TestEvents(t *testing.T) {
	e := &Events{}
	log := slog.New(both{slog.DiscardHandler, slog.NewJSONHandler(e, nil)})
	for i := range maxEvents + 10 {
		log.Info(fmt.Sprint(i), "event", "x")
	}
	if last := e.Last(1 << 20); len(last) != maxEvents {
		t.Errorf("%d lines are kept, want %d", len(last), maxEvents)
	}
	last, lines, stop := e.Follow(2)
	if len(last) != 2 {
		t.Errorf("%d lines, want 2", len(last))
	}
	log.Info("next")
	if line := <-lines; len(line) == 0 {
		t.Error("no line")
	}
	// Who does not read is let go of, and holds nobody up.
	for range maxFollow + 1 {
		log.Info("more")
	}
	n := 0
	for range lines {
		n++
	}
	if n != maxFollow {
		t.Errorf("%d lines before the end, want %d", n, maxFollow)
	}
	stop()
	stop()
}
