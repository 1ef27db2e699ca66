package master

import (
	"context"
	"errors"
	"strings"
	"testing"

	"handoff/internal/api"
)

// What is refused, by its code; nothing happens for it.
func TestControlRefuses(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.Reread = func() (Live, []string, error) { return Live{}, nil, errors.New("handoff.toml: line 3") }
	w := activated(t, cfg)
	m, ctx := w.control, t.Context()
	number := func(_ int, err error) error { return err }
	for _, c := range []struct {
		what string
		want api.Code
		err  error
	}{
		{"no workers", api.CodeOutOfRange, number(m.Scale(ctx, 0, false))},
		{"too many workers", api.CodeOutOfRange, number(m.Scale(ctx, 3, true))},
		{"slot -1", api.CodeUnknownSlot, number(m.Restart(ctx, -1))},
		{"slot 2", api.CodeUnknownSlot, number(m.Restart(ctx, 2))},
		{"a broken configuration", api.CodeReloadFailed, number(m.Reload(ctx))},
		{"an upgrade without a keeper", api.CodeUpgradeFailed, m.Upgrade(ctx)},
		{"a message to a program without a channel", api.CodeNoChannel, m.Send(ctx, 1, []byte("{}"))},
		{"a message to nobody", api.CodeNoChannel, m.Send(ctx, 99, []byte("{}"))},
		{"a signal to nobody", api.CodeUnknownWorker, m.Signal(ctx, 99, "TERM")},
		{"no signal", api.CodeUnknownSignal, m.Signal(ctx, 1, "NONSENSE")},
		{"events for nobody", api.CodeNotEmbedded, m.PublishStatus(ctx)},
		{"one socket for all", api.CodeBalanceFixed, m.SetBalance(ctx, "shared")},
	} {
		if got := code(c.err); got != string(c.want) {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	if s := w.status(); s.Slots != 2 || s.Ready != 2 || s.Generation != 1 || s.State != api.StateServing {
		t.Errorf("%+v", s)
	}
	m.Stop(ctx, true)
	w.ends()
	if _, err := m.Status(ctx); code(err) != string(api.CodeEnded) {
		t.Errorf("%v", err)
	}
	if err := m.Upgrade(ctx); code(err) != string(api.CodeEnded) {
		t.Errorf("%v", err)
	}
}

// Who does not wait for the answer gets none, and the loop goes on.
func TestControlCancelled(t *testing.T) {
	w := activated(t, base("activation", ActivationContract))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if s, err := w.control.Status(ctx); err != nil && !errors.Is(err, context.Canceled) || err == nil && s.Schema != 1 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	w.status()
}

// The status is put among the worker events, at its place.
func TestPublishStatus(t *testing.T) {
	lines := make(chan string, 10)
	cfg := base("activation", ActivationContract)
	cfg.WorkerEvents = func(line []byte, _ bool) { lines <- string(line) }
	w := activated(t, cfg)
	if err := w.control.PublishStatus(t.Context()); err != nil {
		t.Error(err)
	}
	if line := <-lines; !strings.Contains(line, `"event":"cluster.status","status":{"schema":1,"name":"test"`) || !strings.HasSuffix(line, "\n") {
		t.Errorf("%s", line)
	}
}
