package sdnotify

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a service manager hears of a service, in its order.
func TestManager(t *testing.T) {
	var said []string
	now := time.Unix(1000, 0)
	m := NewManager(func(text string) {
		text = regexp.MustCompile(`MONOTONIC_USEC=\d+`).ReplaceAllString(text, "MONOTONIC_USEC=N")
		said = append(said, strings.ReplaceAll(text, "\n", " "))
	}, 30*time.Second, now)
	m.Ready("Generation 1 serves")
	if at := m.Deadline(); at != now {
		t.Errorf("the first sign of life is due at %v, want at once", at)
	}
	m.Tick(now)
	m.Tick(now.Add(9 * time.Second))
	if at := m.Deadline(); at != now.Add(10*time.Second) {
		t.Errorf("the next sign of life is due at %v", at)
	}
	m.Tick(now.Add(10 * time.Second))
	m.Reloading("Reloading", time.Minute)
	m.Stopping("Stopping", time.Second)
	want := []string{
		"READY=1 STATUS=Generation 1 serves",
		"WATCHDOG=1",
		"WATCHDOG=1",
		"RELOADING=1 MONOTONIC_USEC=N STATUS=Reloading EXTEND_TIMEOUT_USEC=70000000",
		"STOPPING=1 STATUS=Stopping EXTEND_TIMEOUT_USEC=11000000",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	if quiet := NewManager(nil, 0, now); !quiet.Deadline().IsZero() {
		t.Error("a service manager without a watchdog is due a sign of life")
	} else {
		quiet.Tick(now)
	}
}
