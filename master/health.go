package master

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"handoff/handoff"
	"handoff/internal/events"
	checks "handoff/internal/health"
	"handoff/master/fleet"
	"handoff/master/health"
	"handoff/master/listeners"
)

// The loop's side of the room master/health: has workers checked, and does what follows.

// Health is how workers are checked.
type Health struct {
	health.Config
	Timeout time.Duration // of one check
	// Check asks once, until ctx ends; dial opens a connection to the worker that about
	// describes.
	Check func(ctx context.Context, dial checks.Dial, about map[string]any) error
	// At reports whether an address is the one that is asked; nil: the first one.
	At func(at netip.AddrPort, name string) bool
}

// healthChecked: the result of a worker's check.
type healthChecked struct {
	id  fleet.ID
	err error
}

func (healthChecked) event() {}

// check begins the checks that are due.
func (m *Master) check(now time.Time) {
	for _, n := range m.health.Due(now) {
		id := fleet.ID(n)
		w, h := m.workers[id], m.cfg.Health
		if w == nil || w.dead {
			m.health.Ended(n)
			continue
		}
		about := m.about(w)
		dial := func(ctx context.Context) (net.Conn, error) {
			return Control{post: m.mail.post, quit: m.mail.quit}.dial(ctx, func() (listeners.Worker, error) { return listeners.Worker(id), nil }, h.At)
		}
		go func() { // ends with the check, which has a timeout
			ctx, cancel := checks.Within(context.Background(), h.Timeout)
			defer cancel()
			m.mail.post(healthChecked{id, h.Check(ctx, dial, about)})
		}()
	}
}

// about describes a worker to a hook, or a command.
func (m *Master) about(w *worker) map[string]any {
	about := map[string]any{"name": m.cfg.Name, "slot": w.slot, "pid": w.process.PID(), "generation": int(w.gen), "worker": int(w.id)}
	if w.port > 0 {
		about["port"] = w.port
	}
	return about
}

func (m *Master) checked(e healthChecked) {
	var skipped checks.Skipped
	if errors.As(e.err, &skipped) {
		m.once("unchecked", "Workers are not checked (--health): "+skipped.Error(), "event", events.HealthSkipped, "reason", skipped.Error())
		e.err = nil
	}
	v, news := m.health.Checked(time.Now(), health.ID(e.id), errorText(e.err))
	w := m.workers[e.id]
	switch {
	case w == nil || w.dead:
	case !news && e.err != nil && !m.fleet.Started(e.id):
		m.step(fleet.Lacks{ID: e.id, What: "does not pass its health check: " + e.err.Error()})
	case !news:
	case v.Kind == health.Passed:
		m.ready(w)
	case v.Kind == health.Refused:
		m.endChecks(e.id)
		m.refuse(w, v.Reason)
	case v.Kind == health.Unwell:
		m.unwell(w, v.Reason)
	case v.Kind == health.Well:
		m.log.Info("Worker passes its health check again", w.attrs(events.WorkerHealthy)...)
		m.avoidUnwell()
	}
}

// unwell has connections go to the others, and replaces a worker.
func (m *Master) unwell(w *worker, reason string) {
	where := "new connections go to the others"
	if m.avoidUnwell(); !m.listeners.Avoids(listeners.Worker(w.id)) {
		where = "new connections still go to it, because no other worker passes"
	}
	m.log.Warn("Worker fails its health check; "+where+", and it is replaced: "+reason, w.attrs(events.WorkerUnhealthy, "reason", reason)...)
	if fw := m.fleet.Worker(w.id); fw.Phase == fleet.Serving && !fw.Leaving && w.gen == m.fleet.Live() {
		m.history.counters.CountRestart(w.slot, "unhealthy", "")
		m.step(fleet.Restart{ID: w.id})
	}
}

// avoidUnwell steers away from the workers that fail their checks.
func (m *Master) avoidUnwell() {
	var ids []listeners.Worker
	for _, id := range m.health.Unwell() {
		ids = append(ids, listeners.Worker(id))
	}
	if m.listeners.Avoid(ids) {
		m.resteer()
	}
}

func (m *Master) endChecks(id fleet.ID) {
	m.health.Ended(health.ID(id))
	m.avoidUnwell()
}

// healthConfig is the room's; zero: nothing is checked.
func (l Live) healthConfig() health.Config {
	if l.Health == nil {
		return health.Config{}
	}
	return l.Health.Config
}

// dial opens a connection to the worker that find finds, see [listeners.Open].
func (c Control) dial(ctx context.Context, find func() (listeners.Worker, error), at func(netip.AddrPort, string) bool) (net.Conn, error) {
	f, err := c.open(ctx, find, at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

// open is dial for the descriptor. find is called in the loop, and what that opens is closed.
func (c Control) open(ctx context.Context, find func() (listeners.Worker, error), at func(netip.AddrPort, string) bool) (*os.File, error) {
	f, err := listeners.Open(ctx, func(f func(*listeners.Table) error) error {
		return c.do(context.WithoutCancel(ctx), func(m *Master) error { return f(m.listeners) })
	}, find, at)
	if errors.Is(err, handoff.ErrShared) || errors.Is(err, handoff.ErrNoSteering) {
		err = checks.Skipped{Err: err}
	}
	return f, err
}

// Serving workers of the previous master are checked from now on.
func (m *Master) checkAdopted() {
	for _, fw := range m.fleet.Workers() {
		if fw.Phase == fleet.Serving {
			m.health.Serves(time.Now(), health.ID(fw.ID))
		}
	}
}
