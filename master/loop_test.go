package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/cmsg"
	"handoff/internal/keeper/fdstore"
	"handoff/master/snapshot"
)

// A life: start, answer, reload, scale, restart, crash, stop.
func TestLife(t *testing.T) {
	w := activated(t, base("activation", ActivationContract))
	if s := w.status(); s.State != api.StateServing || s.Ready != 2 || s.Generation != 1 || len(s.Workers) != 2 {
		t.Fatalf("status %+v", s)
	}
	seen := map[int]bool{}
	for range 64 {
		slot, gen, _ := w.ask("who")
		seen[slot] = true
		if gen != 1 {
			t.Fatalf("generation %d answers", gen)
		}
	}
	if len(seen) != 2 {
		t.Errorf("slots that answer: %v", seen)
	}

	gen, err := w.control.Reload(t.Context())
	if err != nil || gen != 2 {
		t.Fatalf("generation %d, %v", gen, err)
	}
	w.await("cluster.reloaded", "generation=2")
	for range 16 {
		if _, gen, _ := w.ask("who"); gen != 2 {
			t.Fatalf("generation %d answers after the reload", gen)
		}
	}
	w.await("worker.shutdown", "worker=1")
	w.await("worker.shutdown", "worker=2")
	if r := w.status().Reload; r == nil || r.Outcome != api.OutcomeServed || r.Generation != 2 {
		t.Errorf("reload %+v", r)
	}

	if n, err := w.control.Scale(t.Context(), 1, true); n != 3 || err != nil {
		t.Errorf("%d workers, %v", n, err)
	}
	w.await("worker.ready", "slot=2")
	if _, err := w.control.Scale(t.Context(), 9, false); err == nil {
		t.Error("more workers than are allowed")
	}
	if _, err := w.control.Restart(t.Context(), 2); err != nil {
		t.Error(err)
	}
	w.await("worker.shutdown", "slot=2")
	if _, err := w.control.Restart(t.Context(), 7); err == nil {
		t.Error("a slot that is not there is restarted")
	}

	_, _, pid := w.ask("who")
	unix.Kill(pid, unix.SIGKILL)
	w.await("worker.crashed", fmt.Sprint("pid=", pid))
	if s := w.status(); s.LastError == "" {
		t.Error("the status knows nothing of the crash")
	}
	m, err := w.control.Metrics(t.Context())
	if err != nil || m.Counters.Restarts["crashed"] != 1 || m.Counters.Reloads["served"] != 1 || m.Counters.Steerings == 0 {
		t.Errorf("counters %+v, %v", m.Counters, err)
	}

	if err := w.control.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if code := w.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if c, err := net.Dial("tcp", w.at.String()); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
	if _, err := w.control.Status(t.Context()); err == nil {
		t.Error("a master that has ended answers")
	}
}

// Who is crashed on purpose is replaced; what waits at its socket is answered by the next.
func TestWorkersWish(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.Fleet.Slots, cfg.MaxRequests = 1, 1000
	w := activated(t, cfg)
	w.ask("replace me")
	w.await("worker.leaving")
	w.await("worker.shutdown", "worker=1")
	w.ask("requests")
	w.await("worker.recycled", "1000 requests served")
	w.await("worker.shutdown", "worker=2")
	if _, _, pid := w.ask("who"); pid == os.Getpid() {
		t.Error("who answers?")
	}
	if err := w.control.Signal(t.Context(), 3, "TERM"); err != nil {
		t.Error(err)
	}
	w.await("worker.signalled")
	if err := w.control.Signal(t.Context(), 3, "NOSUCH"); err == nil {
		t.Error("a signal that there is not")
	}
	if err := w.control.Signal(t.Context(), 99, "TERM"); err == nil {
		t.Error("a worker that there is not")
	}
	if err := w.control.SetBalance(t.Context(), "sticky"); err != nil {
		t.Error(err)
	}
	if got := w.status().Addresses[0].Balance; got != "sticky" {
		t.Errorf("balance %s", got)
	}
	if err := w.control.Freeze(t.Context()); err != nil {
		t.Error(err)
	}
	w.await("cluster.frozen")
}

func TestReloadIsRefused(t *testing.T) {
	cfg := base("activation", ActivationContract)
	var mu sync.Mutex
	wrong, veto := error(nil), error(nil)
	set := func(w, v error) { mu.Lock(); defer mu.Unlock(); wrong, veto = w, v }
	live := cfg.Live
	live.BeforeReload = func(map[string]any) error { mu.Lock(); defer mu.Unlock(); return veto }
	cfg.Live = live
	cfg.Reread = func() (Live, []string, error) { mu.Lock(); defer mu.Unlock(); return live, []string{"user"}, wrong }
	w := activated(t, cfg)

	set(nil, errors.New("not on Fridays"))
	if gen, err := w.control.Reload(t.Context()); gen != 2 || err != nil {
		t.Fatalf("generation %d, %v", gen, err)
	}
	w.await("reload.refused", "not on Fridays")
	set(errors.New("no such key"), nil)
	w.control.Reload(t.Context())
	w.await("config.failed", "no such key")
	if r := w.status().Reload; r == nil || r.Outcome != api.OutcomeFailed || !strings.Contains(r.Reason, "no such key") {
		t.Errorf("reload %+v", r)
	}
	set(nil, nil)
	if gen, err := w.control.Reload(t.Context()); gen != 2 || err != nil {
		t.Fatalf("generation %d, %v", gen, err)
	}
	w.await("cluster.reloaded", "generation=2")
	w.await("config.later", "user")
}

func TestConfigurationIsWrong(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.Reread = func() (Live, []string, error) { return Live{}, nil, errors.New("no such key") }
	w := activated(t, cfg)
	if _, err := w.control.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("the reload says %v", err)
	}
	if _, gen, _ := w.ask("who"); gen != 1 {
		t.Errorf("generation %d answers", gen)
	}
}

// A configuration that changes takes effect at a reload.
func TestConfigurationChanges(t *testing.T) {
	cfg := base("activation", ActivationContract)
	live := cfg.Live
	live.Fleet.Slots, live.Balance = 3, handoff.Sticky
	cfg.Reread = func() (Live, []string, error) { return live, nil, nil }
	w := activated(t, cfg)
	if _, err := w.control.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await("cluster.reloaded", "workers=3")
	if got := w.status().Addresses[0].Balance; got != "sticky" {
		t.Errorf("balance %s", got)
	}
}

func TestBrokenGeneration(t *testing.T) {
	w := activated(t, base("second-generation-crashes", ActivationContract))
	if _, err := w.control.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await("cluster.failed", "generation=2", "serving=1", "generation 2 has no database")
	s := w.status()
	if s.Generation != 1 || s.Reload == nil || s.Reload.Outcome != api.OutcomeFailed || len(s.Reload.Stderr) == 0 {
		t.Errorf("status %+v, reload %+v", s, s.Reload)
	}
	if _, gen, _ := w.ask("who"); gen != 1 {
		t.Errorf("generation %d answers", gen)
	}
}

// A scale or a restart whose workers cannot start is given up, as a reload is.
func TestChangeFails(t *testing.T) {
	cfg := base("later-workers-crash", ActivationContract)
	broken := filepath.Join(t.TempDir(), "broken")
	cfg.Command.Env = append(cfg.Command.Env, "FILE="+broken)
	w := activated(t, cfg)
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := w.control.Scale(t.Context(), 3, false); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	w.await("scale.failed", "wanted=3", "workers=2", "slot=2", "the database is gone")
	s := w.status()
	if f := s.Failed; s.Slots != 2 || f == nil || f.Change != api.ChangeScale || f.Workers != 3 || !slices.Contains(f.Stderr, "the database is gone") {
		t.Errorf("%+v, %+v", s, f)
	}
	if _, err := w.control.Restart(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.await("restart.failed", "slot=1", "the database is gone")
	s = w.status()
	if f := s.Failed; s.State != api.StateServing || s.Ready != 2 || f == nil || f.Change != api.ChangeRestart || f.Slot != 1 {
		t.Errorf("%+v, %+v", s, f)
	}
	w.ask("who")
}

// A start that takes too long is reported with the last words of its worker.
func TestHangingStart(t *testing.T) {
	cfg := base("second-generation-hangs", ActivationContract)
	cfg.Fleet.ReadyTimeout = 3 * time.Second
	w := activated(t, cfg)
	w.control.Reload(t.Context())
	w.await("cluster.failed", "generation=2", "not ready within 3s", "waiting for the database")
	w.ask("who")
}

// Workers can have the kernel refuse to steer. A reload to which nothing is steered has
// failed, and nobody is sent away for it; one that can still be steered goes on.
func TestSteeringFails(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all=%v", all), func(t *testing.T) {
			cfg := base("locks-filter", ActivationContract)
			if all {
				cfg.Command.Env = append(cfg.Command.Env, "LOCK=all")
			}
			w := activated(t, cfg)
			for _, worker := range w.status().Workers {
				if err := w.control.Signal(t.Context(), worker.Worker, "USR1"); err != nil {
					t.Fatal(err)
				}
			}
			w.await("worker.status", "worker=1", "locked")
			w.await("worker.status", "worker=2", "locked")
			if _, err := w.control.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := 2
			if all {
				w.await("cluster.failed", "generation=2", "serving=1", "cannot steer connections", "operation not permitted")
				w.await("worker.shutdown", "generation=2")
				if s := w.status(); s.State != "serving" || s.Generation != 1 || s.Ready != 2 || s.Reload.Outcome != api.OutcomeFailed {
					t.Errorf("%+v", s)
				}
				want = 1
			} else {
				w.await("cluster.reloaded")
			}
			for range 10 {
				if _, gen, _ := w.ask("who"); gen != want {
					t.Errorf("generation %d answers", gen)
				}
			}
		})
	}
}

func TestFirstGenerationFails(t *testing.T) {
	w := run(t, base("crash", ActivationContract))
	if code := w.ends(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	w.await("cluster.failed", "no database")

	cfg := base("activation", ActivationContract)
	cfg.Command.Args = []string{"/no/such/program"}
	w = run(t, cfg)
	if code := w.ends(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	w.await("cluster.failed", "/no/such/program")
}

func TestReadyIsRefused(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.BeforeReady = func(about map[string]any) error {
		if about["generation"] == 2 {
			return errors.New("it answers 500")
		}
		return nil
	}
	w := activated(t, cfg)
	w.control.Reload(t.Context())
	w.await("worker.refused", "it answers 500")
	w.await("cluster.failed", "generation=2", "serving=1")
}

func TestStops(t *testing.T) {
	cfg := base("silent", ActivationContract)
	cfg.Fleet.KillGrace = 10 * time.Second
	w := run(t, cfg)
	w.await("worker.started", "slot=1")
	unix.Kill(os.Getpid(), unix.SIGTERM)
	w.await("cluster.shutdown", "signal=SIGTERM")
	if code := w.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w = run(t, cfg)
	w.await("worker.started", "slot=1")
	// In one batch: the second one hurries, whatever the first has come to.
	w.control.do(t.Context(), func(m *Master) error {
		m.signalled(unix.SIGINT)
		m.signalled(unix.SIGINT)
		return nil
	})
	if code := w.ends(); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

func TestSignals(t *testing.T) {
	w := activated(t, base("activation", ActivationContract))
	for _, c := range []struct {
		signal unix.Signal
		events []string
	}{
		{unix.SIGTTIN, []string{"cluster.scaled", "workers=3"}},
		{unix.SIGTTOU, []string{"cluster.scaled", "workers=2"}},
		{unix.SIGUSR1, []string{"log.reopened"}},
		{unix.SIGHUP, []string{"cluster.reloaded", "generation=2"}},
		{unix.SIGUSR2, []string{"cluster.reloaded", "generation=3"}},
	} {
		unix.Kill(os.Getpid(), c.signal)
		w.await(c.events...)
	}
}

// freePort is a port of loopback's that nobody listens on.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestBind(t *testing.T) {
	cfg := base("bind", BindContract)
	at := "127.0.0.1:" + freePort(t)
	cfg.Command.Env = append(cfg.Command.Env, "ADDRESS="+at)
	w := run(t, cfg)
	w.await("cluster.started", at)
	w.at.UnmarshalText([]byte(at))
	w.ask("who")
	w.control.Reload(t.Context())
	w.await("cluster.reloaded", "generation=2")
	if _, gen, _ := w.ask("who"); gen != 2 {
		t.Errorf("generation %d answers", gen)
	}
	_, _, pid := w.ask("who")
	unix.Kill(pid, unix.SIGKILL)
	w.await("worker.crashed")
	for range 8 { // what goes to its socket waits for its replacement
		w.ask("who")
	}
}

func TestNode(t *testing.T) {
	cfg := base("node", NodeContract)
	port := freePort(t)
	cfg.Command.Env = append(cfg.Command.Env, "PORT_TO_ASK="+port)
	lines := make(chan string, 64)
	cfg.WorkerEvents = func(line []byte, wait bool) { lines <- string(line) }
	w := run(t, cfg)
	w.await("cluster.started", port)
	w.at.UnmarshalText([]byte("127.0.0.1:" + port))
	w.ask("who")
	id := w.status().Workers[0].Worker
	if err := w.control.Send(t.Context(), id, json.RawMessage(`{"hello":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := w.control.Send(t.Context(), 99, json.RawMessage(`{}`)); err == nil {
		t.Error("a worker that there is not hears a message")
	}
	late := time.After(testTimeout)
	for echoed := false; !echoed; {
		select {
		case line := <-lines:
			echoed = strings.Contains(line, `node.message`) && strings.Contains(line, `"echo"`)
		case <-late:
			t.Fatal("no echo")
		}
	}
	w.control.Reload(t.Context())
	w.await("cluster.reloaded", "generation=2")
	if _, gen, _ := w.ask("who"); gen != 2 {
		t.Errorf("generation %d answers", gen)
	}
	w.await("worker.shutdown", "worker=1")
	_, _, pid := w.ask("who")
	unix.Kill(pid, unix.SIGKILL)
	w.await("worker.crashed")
	w.ask("who")
}

// The next master goes on with the workers of one that has made room for it.
func TestNextMaster(t *testing.T) {
	for _, c := range []struct {
		role     string
		contract Contract
	}{{"activation", ActivationContract}, {"bind", BindContract}, {"node", NodeContract}} {
		t.Run(c.role, func(t *testing.T) {
			k := newKeeper(t)
			cfg := base(c.role, c.contract)
			port := freePort(t)
			cfg.Command.Env = append(cfg.Command.Env, "ADDRESS=127.0.0.1:"+port, "PORT_TO_ASK="+port)
			cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
			cfg.Changed = func() bool { return true }
			cfg.Upgrade = func(state []byte) error { return CheckRecord(state) }
			var w *world
			if c.contract == ActivationContract {
				w = activated(t, cfg)
			} else {
				w = run(t, cfg)
				w.await("cluster.started", port)
				w.at.UnmarshalText([]byte("127.0.0.1:" + port))
			}
			_, _, before := w.ask("who")
			if err := w.control.Upgrade(t.Context()); err != nil {
				t.Fatal(err)
			}
			if code := w.ends(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			again := w.cfg
			again.Store, again.Upgraded = k.takeAll(t), true
			next := run(t, again)
			next.at = w.at
			next.await("master.upgraded", "workers=2")
			<-next.began
			pids := map[int]bool{}
			for range 64 {
				_, gen, pid := next.ask("who")
				if pids[pid] = true; gen != 1 {
					t.Fatalf("generation %d answers", gen)
				}
			}
			if !pids[before] {
				t.Errorf("%v answer, not %d of before", pids, before)
			}
			if m, _ := next.control.Metrics(t.Context()); m.Counters.Upgrades != 1 {
				t.Errorf("counters %+v", m.Counters)
			}
			next.control.Reload(t.Context()) // upgrades, too: the binary is another one
			if code := next.ends(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			again.Store, again.Changed = k.takeAll(t), func() bool { return false }
			last := run(t, again)
			last.at = w.at
			last.await("cluster.reloaded", "generation=2") // the reload that follows the upgrade
			if _, gen, _ := last.ask("who"); gen != 2 {
				t.Errorf("generation %d answers", gen)
			}
		})
	}
}

func TestUpgradeFails(t *testing.T) {
	cfg := base("activation", ActivationContract)
	w := activated(t, cfg)
	if err := w.control.Upgrade(t.Context()); code(err) != string(api.CodeUpgradeFailed) {
		t.Errorf("without a keeper: %v", err)
	}
	k := newKeeper(t)
	cfg.Keeper = k.address
	cfg.Changed = func() bool { return true }
	cfg.Upgrade = func([]byte) error { return errors.New("exec format error") }
	w = activated(t, cfg)
	if err := w.control.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("%v", err)
	}
	w.control.Reload(t.Context())
	w.await("cluster.failed", "the upgrade failed")
	if r := w.status().Reload; r == nil || r.Outcome != api.OutcomeFailed {
		t.Errorf("reload %+v", r)
	}
	w.ask("who")
}

// A master that dies between the steering and the word of it is made up for.
func TestReadyIsReportedByTheNext(t *testing.T) {
	k := newKeeper(t)
	cfg := base("activation", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	cfg.Upgrade = func([]byte) error { return nil }
	w := activated(t, cfg)
	if err := w.control.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ends()
	again := w.cfg
	again.Store = k.takeAll(t)
	for i, n := range again.Store {
		if n.Name != fdstore.State {
			continue
		}
		r, err := snapshot.Read(n.FD)
		if err != nil {
			t.Fatal(err)
		}
		r.Workers[1].Unreported = true
		f, err := snapshot.Write(r)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if again.Store[i].FD, err = unix.Dup(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
	}
	next := run(t, again)
	next.await("worker.ready", "worker=2")
	next.status()
	for _, line := range next.log.all {
		if strings.HasPrefix(line, "worker.ready") && strings.Contains(line, "worker=1") {
			t.Errorf("said twice: %s", line)
		}
	}
}

// A record that nobody can read is no reason not to serve.
func TestRecordIsLost(t *testing.T) {
	k := newKeeper(t)
	cfg := base("activation", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	cfg.Upgrade = func([]byte) error { return nil }
	w := activated(t, cfg)
	_, _, before := w.ask("who")
	w.control.Upgrade(context.Background())
	w.ends()
	again := w.cfg
	again.Store = k.takeAll(t)
	for _, n := range again.Store {
		if n.Name == "state" {
			unix.Ftruncate(n.FD, 10)
		}
	}
	next := activated(t, again)                             // on another port: the sockets of the one before are this process's own
	next.await("worker.killed", fmt.Sprint("pid=", before)) // nobody would look after it
	next.ask("who")
}

// A process that the master before had started and not recorded is killed by its pidfd,
// whatever it has made of its environment.
func TestUnrecordedIsKilled(t *testing.T) {
	k := newKeeper(t)
	cfg := base("activation", ActivationContract)
	cfg.Keeper, cfg.PID, cfg.Instance = k.address, os.Getpid(), t.Name()
	cfg.Upgrade = func(state []byte) error { return CheckRecord(state) }
	w := activated(t, cfg)
	_, _, before := w.ask("who")
	if err := w.control.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ends()
	stranger := exec.Command("sleep", "60")
	stranger.Env, stranger.SysProcAttr = []string{}, &syscall.SysProcAttr{Setpgid: true}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(stranger.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	again := w.cfg
	again.Store, again.Upgraded = append(k.takeAll(t), cmsg.Named{Name: fdstore.WorkerName(9, fdstore.PID), FD: fd}), true
	next := run(t, again)
	next.at = w.at
	next.await("worker.killed", fmt.Sprint("pid=", stranger.Process.Pid))
	if err := stranger.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	next.await("master.upgraded", "workers=2")
	<-next.began
	for range 64 {
		if _, _, pid := next.ask("who"); pid == before {
			return
		}
	}
	t.Errorf("%d does not answer any more", before)
}
