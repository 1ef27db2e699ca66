package master

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/master/listeners"
	"handoff/master/reload"
	"handoff/master/sequence"
)

// A reload that is ordered during an upgrade reads the configuration at once: one that is
// wrong is refused, one that is right is in effect behind the upgrade.
func TestReloadDuringUpgrade(t *testing.T) {
	k := newKeeper(t)
	cfg := base("activation", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	started, end := make(chan struct{}), make(chan struct{})
	cfg.Upgrade = func([]byte) error {
		close(started)
		<-end
		return nil
	}
	wrong := true
	cfg.Reread = func() (Live, []string, error) {
		if wrong {
			return Live{}, nil, errors.New("handoff.toml: line 3")
		}
		live := cfg.Live
		live.Program = []byte("the new one")
		return live, nil, nil
	}
	w := activated(t, cfg)
	upgraded := make(chan error, 1)
	go func() { upgraded <- w.control.Upgrade(t.Context()) }()
	<-started
	if _, err := w.control.Reload(t.Context()); code(err) != string(api.CodeReloadFailed) {
		t.Errorf("%v", err)
	}
	wrong = false
	if generation, err := w.control.Reload(t.Context()); generation != 2 || err != nil {
		t.Errorf("generation %d, %v", generation, err)
	}
	close(end)
	if err := <-upgraded; err != nil {
		t.Error(err)
	}
	w.ends()
	if program, err := fdstore.ReadProgram(k.address); string(program) != "the new one" {
		t.Errorf("the next master has %q, %v", program, err)
	}
	again := w.cfg
	again.Store = k.takeAll(t)
	next := run(t, again)
	next.at = w.at
	next.await("cluster.reloaded", "generation=2")
}

// A master that cannot steer where the one before has steered sends nobody away for it,
// and tries again.
func TestSteeringFailsAtAdoption(t *testing.T) {
	k := newKeeper(t)
	cfg := base("locks-filter", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	cfg.Upgrade = func([]byte) error { return nil }
	w := activated(t, cfg)
	for _, worker := range w.status().Workers {
		w.control.Signal(t.Context(), worker.Worker, "USR1")
	}
	w.await("worker.status", "worker=1", "locked")
	w.await("worker.status", "worker=2", "locked")
	w.control.Upgrade(t.Context())
	w.ends()
	again := w.cfg
	again.Store = k.takeAll(t)
	next := run(t, again)
	next.at = w.at
	next.await("address.hash", "operation not permitted")
	steerings := func() int {
		m, err := next.control.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m.Counters.Steerings
	}
	<-next.began
	for late, before := time.Now().Add(testTimeout), steerings(); steerings() == before; {
		if next.ask("who"); time.Now().After(late) {
			t.Fatal("it is not tried again")
		}
	}
}

// Of a reload that is to be judged after an upgrade the record says so, and not that it
// follows in any case: an older binary reads that first, and never asks again.
func TestRecordOfPendingReload(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.Log = slog.New(slog.DiscardHandler)
	m, err := newMaster(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.listeners.Close()
	m.reloads.Hook = true
	m.reloads.Step(time.Now(), reload.UpgradeOrder{})
	m.reloads.Step(time.Now(), reload.Order{})
	if r := m.record(); r.Reload || !r.Asking || sequence.Reloads(r).Phase != reload.Asking {
		t.Errorf("reload %v, asking %v, %+v", r.Reload, r.Asking, sequence.Reloads(r))
	}
}

// What has happened to sockets is taken in before the last record: a notice of it that
// has come comes again and again until then, and would hold up everything behind it.
func TestDrainTakesSocketsIn(t *testing.T) {
	cfg := base("activation", ActivationContract)
	w := &world{t: t, log: &logged{news: make(chan struct{})}}
	cfg.Log = slog.New(w.log)
	m, err := newMaster(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.listeners.Close()
	a, err := m.listeners.Preopen(listeners.Listen{Addr: netip.MustParseAddrPort("127.0.0.1:0"), UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	m.steps.Resume(func() {})
	lease, err := a.Take(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Shutdown(lease.FD(), unix.SHUT_RDWR)
	if err := m.listeners.Wait(); err != nil {
		t.Fatal(err)
	}
	m.mail.post(socketActivity{})
	m.drainEvents()
	w.await("address.mended", "shutdown(2)")
}

// The keeper dies when the new binary has said that it can take over, before this master
// has left: the new one has nobody to get its descriptors from, so this one stays, and
// starts another keeper.
func TestKeeperDiesAsTheMasterLeaves(t *testing.T) {
	k := newKeeper(t)
	cfg := base("activation", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	ready := make(chan struct{})
	var w *world
	cfg.Upgrade = func([]byte) error { close(ready); <-t.Context().Done(); return nil }
	replaced := make(chan struct{}, 1)
	cfg.ReplaceKeeper = func([]cmsg.Named, []byte) error { replaced <- struct{}{}; return errors.New("not here") }
	w = activated(t, cfg)
	go w.control.Upgrade(t.Context()) // ends with the test
	<-ready
	w.control.do(t.Context(), func(m *Master) error {
		m.mail.events <- keeperDied{} // is handled by drainEvents
		m.order(reload.UpgradeEnded{})
		return nil
	})
	<-replaced
	w.await(events.UpgradeFailed)
	w.ask("who")
}
