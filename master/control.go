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

// Control is how others speak to a running master, from any goroutine. Each call is a
// request that the loop does between two events. Errors that say why something is not
// done are an [api.Error]; one that the master has not come to is [api.CodeEnded].
type Control struct {
	post     func(event)
	quit     <-chan struct{}
	replaced *bool // of the master; may be read after quit
}

var (
	errEnded    = api.Error{Code: api.CodeEnded, Message: "the master has ended"}
	errStopping = api.Error{Code: api.CodeStopping, Message: "the service is stopping"}
)

// ask has the loop call f, and returns what f does. f must not touch what the caller
// has: who does not wait for the answer any more has gone on.
func ask[T any](ctx context.Context, c Control, f func(m *Master) (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	to := make(chan result, 1)
	go c.post(asked{func(m *Master) { // ends when the loop has taken it, or with the loop
		answer, err := f(m)
		to <- result{answer, err}
	}})
	select {
	case r := <-to:
		return r.answer, r.err
	case <-c.quit:
		select {
		case r := <-to: // it was the last thing that the loop did
			return r.answer, r.err
		default:
			return answer, errEnded
		}
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// do is ask for what has no answer.
func (c Control) do(ctx context.Context, f func(m *Master) error) error {
	_, err := ask(ctx, c, func(m *Master) (struct{}, error) { return struct{}{}, f(m) })
	return err
}

// Status asks for the state of the service.
func (c Control) Status(ctx context.Context) (api.Status, error) {
	return ask(ctx, c, func(m *Master) (api.Status, error) { return m.status(), nil })
}

// Upgrade asks for one. It returns when it has failed, or nil when this master has
// made room for the new one.
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

// Reload asks for one, as SIGUSR2 does, and returns the generation that it will
// be. [api.Status.Reload] says what comes of it. One that is under way is overtaken.
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

// Stop stops everything: with drain, or now.
func (c Control) Stop(ctx context.Context, now bool) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("Stopping on request", "event", events.ClusterShutdown, "workers", len(m.workers), "now", now)
		m.step(fleet.Stop{Now: now})
		return nil
	})
}

// Restart replaces the worker of a slot, and returns the number of the one that is
// there now.
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

// PublishStatus puts the status among the worker events, as the event cluster.status:
// in the order of all others, so that who has missed some knows from when on it has not.
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

// Freeze has nobody started any more, whoever ends, for as long as this service
// runs.
func (c Control) Freeze(ctx context.Context) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("Workers that end are no longer replaced, on request", "event", events.ClusterFrozen)
		m.step(fleet.Freeze{})
		return nil
	})
}

// SetBalance changes how connections are spread, until the configuration changes it:
// to "even" or "sticky".
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
