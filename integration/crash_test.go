package integration

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"handoff/internal/load"
)

// Random workers are killed under load. Only the requests inside a killed worker
// are lost: never a refused connection, never one left hanging. What was queued
// at the dead worker's socket is handed to live ones.
func TestCrashes(t *testing.T) {
	t.Parallel()
	const clients = 16
	w := start(t, options{flags: []string{"-n", "4", "--respawn", "0.05", "--backoff", "0.2"}})
	run := w.load(load.Config{Clients: clients})
	kills := times(50, 15)
	for range kills {
		run.Await(60, testTimeout)
		pids := w.workers()
		victim := pids[rand.IntN(len(pids))]
		syscall.Kill(victim, syscall.SIGKILL)
		w.awaitWhere("worker.crashed", func(e event) bool { return e.PID == victim })
		w.await("worker.ready")
	}
	run.Await(60, testTimeout)
	r := run.Stop()
	t.Log(r)
	rescued := 0
	for _, e := range w.all("address.rescued") {
		rescued += e.Conns
	}
	t.Logf("%d kills; %d requests inside killed workers lost; %d connections handed to live workers", kills, r.Lost(), rescued)
	inside := r.Failed[load.Reset] + r.Failed[load.EOF]
	if r.Lost() != inside || inside > int64(kills*clients/2) {
		t.Errorf("lost %v", r.Failed)
	}
	if n := len(w.all("worker.crashed")); n != kills {
		t.Errorf("%d crashes are reported, want %d", n, kills)
	}
	if n := len(w.all("worker.started")); n != 4+kills {
		t.Errorf("%d workers were started, want %d: one for each crash", n, 4+kills)
	}
	w.stop()
}

// Connections that wait at a worker which dies without having accepted them are
// answered by the others.
func TestQueueOfADeadWorkerIsRescued(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--balance", "sticky"}})
	// Sticky, so that the stalled worker is not steered away and its queue
	// grows.
	pids := w.workers()
	syscall.Kill(pids[0], syscall.SIGSTOP)
	const sources = 32 // half of them wait, and keep waiting
	run := w.load(load.Config{Clients: times(sources, 2000), Sources: loopback(sources)})
	run.Await(100, testTimeout) // the other worker's clients go on
	syscall.Kill(pids[0], syscall.SIGKILL)
	e := w.await("address.rescued")
	t.Logf("%d connections rescued", e.Conns)
	run.Await(100, testTimeout)
	if r := w.nothingLost(run); e.Conns == 0 {
		t.Error(r)
	}
	w.stop()
}

// With one worker nobody can take over: connections wait for the replacement,
// which gets the same socket.
func TestCrashOfTheOnlyWorker(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1", "--respawn", "0.05"}})
	syscall.Kill(w.workers()[0], syscall.SIGSTOP)
	run := w.load(load.Config{Clients: 8})
	// Nothing is answered; the connections are made.
	w.awaitQueue(8)
	syscall.Kill(w.workers()[0], syscall.SIGKILL)
	w.await("worker.crashed")
	w.await("worker.ready")
	run.Await(100, testTimeout)
	w.nothingLost(run)
	w.stop()
}
