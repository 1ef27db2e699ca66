package master

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/events"
	"handoff/internal/linux"
	"handoff/master/contract/node"
	"handoff/master/fleet"
	"handoff/master/reload"
)

// Control is the interface to a running master, for any goroutine. The loop carries out
// each call between two events. Errors are an [api.Error]; if the master ended before the
// call it is [api.CodeEnded].
type Control struct {
	post     func(event)
	quit     <-chan struct{}
	replaced *bool // of the master; may be read after quit
}

var (
	errEnded    = api.Error{Code: api.CodeEnded, Message: "the master has ended"}
	errStopping = api.Error{Code: api.CodeStopping, Message: "the service is stopping"}
)

// ask makes the loop call f, and returns f's results. f must not use variables of the
// caller, which may have stopped waiting.
func ask[T any](ctx context.Context, c Control, f func(m *Master) (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	to := make(chan result, 1)
	go c.post(asked{func(m *Master) { // ends when the loop has received it, or with the loop
		answer, err := f(m)
		to <- result{answer, err}
	}})
	select {
	case r := <-to:
		return r.answer, r.err
	case <-c.quit:
		select {
		case r := <-to: // it was the last call that the loop carried out
			return r.answer, r.err
		default:
			return answer, errEnded
		}
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// do is ask without a result.
func (c Control) do(ctx context.Context, f func(m *Master) error) error {
	_, err := ask(ctx, c, func(m *Master) (struct{}, error) { return struct{}{}, f(m) })
	return err
}

// Status returns the status of the service.
func (c Control) Status(ctx context.Context) (api.Status, error) {
	return ask(ctx, c, func(m *Master) (api.Status, error) { return m.status(), nil })
}

// Upgrade starts an upgrade. It returns its error, or nil when the new master takes over.
func (c Control) Upgrade(ctx context.Context) error {
	to := make(chan error, 1)
	go c.post(upgradeAsked{to})
	select {
	case err := <-to:
		return api.Errorf(api.CodeUpgradeFailed, "%v", err)
	case <-c.quit:
		if *c.replaced {
			return nil
		}
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reload starts a reload, as SIGUSR2 does, and returns its generation.
// [api.Status.Reload] has the outcome. It supersedes a running reload.
func (c Control) Reload(ctx context.Context) (generation int, err error) {
	return ask(ctx, c, func(m *Master) (generation int, err error) {
		if m.fleet.Stopping() {
			return 0, errStopping
		}
		m.order(reload.Order{Upgrade: true})
		last := m.reloads.Last
		switch {
		case last.Outcome == reload.Failed && last.Generation > m.reloads.Generation:
			return 0, api.Errorf(api.CodeReloadFailed, "%s", last.Reason)
		case m.reloads.Next() > 0: // after the upgrade, or the answer
			generation = m.reloads.Next()
		default:
			generation = m.reloads.Generation
		}
		return generation, nil
	})
}

// Scale sets the number of workers, or changes it by that much, and returns it.
func (c Control) Scale(ctx context.Context, n int, relative bool) (workers int, err error) {
	return ask(ctx, c, func(m *Master) (workers int, err error) {
		n := n
		if relative {
			n += m.fleet.Slots()
		}
		if m.fleet.Stopping() {
			return 0, errStopping
		}
		if n < 1 || n > m.cfg.MaxSlots {
			return 0, api.Errorf(api.CodeOutOfRange, "%d workers: want 1 to %d", n, m.cfg.MaxSlots)
		}
		m.scaleTo(n)
		return n, nil
	})
}

// Stop stops the service: with a drain, or now.
func (c Control) Stop(ctx context.Context, now bool) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("Stopping on request", "event", events.ClusterShutdown, "workers", len(m.workers), "now", now)
		m.stop(now)
		return nil
	})
}

// Restart replaces the worker of a slot, and returns the number of the current one.
func (c Control) Restart(ctx context.Context, slot int) (worker int, err error) {
	return ask(ctx, c, func(m *Master) (worker int, err error) {
		if m.fleet.Stopping() {
			return 0, errStopping
		}
		if slot < 0 || slot >= m.fleet.Slots() {
			return 0, api.Errorf(api.CodeUnknownSlot, "no slot %d: slots are 0 to %d", slot, m.fleet.Slots()-1)
		}
		for _, w := range m.fleet.Workers() {
			if w.Slot == slot && w.Gen == m.fleet.Live() && w.Phase == fleet.Serving && !w.Leaving {
				worker = int(w.ID)
				m.history.counters.CountRestart(slot, "asked", "")
				m.step(fleet.Restart{ID: w.ID})
				return worker, nil
			}
		}
		return 0, api.Errorf(api.CodeSlotUnserved, "no worker serves slot %d now", slot)
	})
}

// PublishStatus adds the status to the worker events, as the event cluster.status: in
// order, so that a client that has missed some knows which events follow it.
func (c Control) PublishStatus(ctx context.Context) error {
	return c.do(ctx, func(m *Master) error {
		if m.cfg.WorkerEvents == nil {
			return api.Errorf(api.CodeNotEmbedded, "worker events are not recorded: handoff was not started with --embedded, by the SDK")
		}
		b, err := json.Marshal(struct {
			Time   time.Time  `json:"time"`
			Event  string     `json:"event"`
			Status api.Status `json:"status"`
		}{time.Now(), events.ClusterStatus, m.status()})
		if err == nil {
			m.cfg.WorkerEvents(append(b, '\n'), false)
		}
		return err
	})
}

// Send sends a message, as JSON, to a Node worker: process.on('message').
func (c Control) Send(ctx context.Context, worker int, message json.RawMessage) error {
	return c.do(ctx, func(m *Master) error {
		w := m.workers[fleet.ID(worker)]
		var to interface{ Send(json.RawMessage) error }
		if w != nil {
			to, _ = w.session.(interface{ Send(json.RawMessage) error })
		}
		if to == nil {
			return api.Errorf(api.CodeNoChannel, "worker %d has no IPC channel", worker)
		}
		switch err := to.Send(message); {
		case errors.Is(err, node.ErrNoChannel):
			return api.Errorf(api.CodeNoChannel, "worker %d has no IPC channel", worker)
		case errors.Is(err, node.ErrBusy):
			return api.Errorf(api.CodeWorkerBusy, "worker %d does not read its messages", worker)
		case err != nil:
			return api.Errorf(api.CodeReservedMessage, "%v", err)
		}
		return nil
	})
}

// Signal sends a signal to a worker's process, by its name: TERM.
func (c Control) Signal(ctx context.Context, worker int, name string) error {
	return c.do(ctx, func(m *Master) error {
		w := m.workers[fleet.ID(worker)]
		if w == nil {
			return api.Errorf(api.CodeUnknownWorker, "there is no worker %d", worker)
		}
		s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
		if s == 0 {
			return api.Errorf(api.CodeUnknownSignal, "unknown signal %q", name)
		}
		m.log.Info("Sent "+linux.SignalName(s)+" to worker on request", w.attrs(events.WorkerSignalled)...)
		if s == unix.SIGKILL {
			return w.process.Kill()
		}
		return w.process.Signal(s)
	})
}

// Freeze stops the replacement of workers that end, until the service ends.
func (c Control) Freeze(ctx context.Context) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("Workers that end are no longer replaced, on request", "event", events.ClusterFrozen)
		m.step(fleet.Freeze{})
		return nil
	})
}

// SetBalance changes the balance, to "even" or "sticky", until the configuration changes
// it.
func (c Control) SetBalance(ctx context.Context, to string) error {
	return c.do(ctx, func(m *Master) error {
		b, ok := map[string]handoff.Balance{"even": handoff.Even, "sticky": handoff.Sticky}[to]
		if !ok || m.listeners.Balance() == handoff.Shared {
			return api.Errorf(api.CodeBalanceFixed, "the balance can only change between even and sticky")
		}
		m.rebalance(b)
		return nil
	})
}

func (m *Master) rebalance(b handoff.Balance) {
	m.report(events.AddressFailed, m.listeners.SetBalance(b))
}
