package master

import (
	"context"
	"errors"
	"fmt"

	"handoff/internal/api"
	"handoff/master/fleet"
	"handoff/master/reload"
)

// Control is how others speak to a running master. Each call is done by the loop;
// it returns ErrGone when the master has ended before.
type Control struct {
	post     func(event)
	quit     <-chan struct{}
	replaced *bool // of the master; may be read after quit
}

// ErrGone is that the master has ended; ErrRefused is in the errors that say why
// something is not done.
var (
	ErrGone    = errors.New("the master has ended")
	ErrRefused = errors.New("refused")
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// do has the loop call f.
func (c Control) do(ctx context.Context, f func(m *Master) error) error {
	to := make(chan error, 1)
	go c.post(asked{f, to}) // ends when the loop has taken it, or with the loop
	select {
	case err := <-to:
		return err
	case <-c.quit:
		return ErrGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status asks what there is.
func (c Control) Status(ctx context.Context) (s api.Status, err error) {
	err = c.do(ctx, func(m *Master) error {
		s = m.status()
		return nil
	})
	return s, err
}

// Upgrade asks for one. It returns when it has failed, or nil when this master has
// made room for the new one.
func (c Control) Upgrade(ctx context.Context) error {
	to := make(chan error, 1)
	go c.post(upgradeAsked{to})
	select {
	case err := <-to:
		return err
	case <-c.quit:
		if *c.replaced {
			return nil
		}
		return ErrGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reload asks for one, as SIGUSR2 does, and returns the generation that it will
// be. [api.Status.Reload] says what comes of it. One that is under way is overtaken.
func (c Control) Reload(ctx context.Context) (generation int, err error) {
	err = c.do(ctx, func(m *Master) error {
		if m.fleet.Stopping() {
			return refuse("the service is stopping")
		}
		m.order(reload.Order{Upgrade: true})
		last := m.reloads.Last
		switch {
		case last.Outcome == reload.Failed && last.Generation > m.reloads.Generation && m.reloads.Phase == reload.Idle:
			return refuse("%s", last.Reason)
		case m.reloads.Next() > 0: // after the upgrade, or the answer
			generation = m.reloads.Next()
		default:
			generation = m.reloads.Generation
		}
		return nil
	})
	return generation, err
}

// Scale sets the number of workers, or changes it by that much, and returns it.
func (c Control) Scale(ctx context.Context, n int, relative bool) (workers int, err error) {
	err = c.do(ctx, func(m *Master) error {
		if relative {
			n += m.fleet.Slots()
		}
		if m.fleet.Stopping() {
			return refuse("the service is stopping")
		}
		if n < 1 || n > m.cfg.SlotsMost {
			return refuse("%d workers; want 1 to %d", n, m.cfg.SlotsMost)
		}
		workers = n
		m.scaleTo(n)
		return nil
	})
	return workers, err
}

// Stop stops everything: with drain, or now.
func (c Control) Stop(ctx context.Context, now bool) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("Stopping, as asked", "event", "cluster.shutdown", "workers", len(m.workers), "now", now)
		m.step(fleet.Stop{Now: now})
		return nil
	})
}

// Restart replaces the worker of a slot, and returns the number of the one that is
// there now.
func (c Control) Restart(ctx context.Context, slot int) (worker int, err error) {
	err = c.do(ctx, func(m *Master) error {
		if m.fleet.Stopping() {
			return refuse("the service is stopping")
		}
		if slot < 0 || slot >= m.fleet.Slots() {
			return refuse("there is no slot %d; there are 0 to %d", slot, m.fleet.Slots()-1)
		}
		for _, w := range m.fleet.Workers() {
			if w.Slot == slot && w.Gen == m.fleet.Live() && w.Phase == fleet.Serving && !w.Leaving {
				worker = int(w.ID)
				m.step(fleet.Leave{ID: w.ID})
				return nil
			}
		}
		return refuse("no worker serves slot %d now", slot)
	})
	return worker, err
}
