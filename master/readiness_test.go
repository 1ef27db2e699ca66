package master

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/sdnotify"
)

// twoPorts listens on FIRST, and, in the generations that SECOND names, on ADDRESS; at
// SIGUSR1 it does, too, and at SIGUSR2 it closes that. In those that SAY names it says that
// it is ready before, in those that PROBE names it tries ADDRESS once.
func twoPorts() int {
	is := func(name string) bool {
		return strings.Contains(os.Getenv(name), os.Getenv("HANDOFF_GENERATION"))
	}
	var busy sync.WaitGroup
	listen := func(name string) net.Listener {
		l, err := net.Listen("tcp", os.Getenv(name))
		if err != nil {
			os.Exit(4)
		}
		return l
	}
	serve := func(l net.Listener) net.Listener {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				busy.Add(1)
				go func() { defer busy.Done(); defer c.Close(); answer(c) }()
			}
		}()
		return l
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	if is("PROBE") {
		listen("ADDRESS").Close()
	} else {
		serve(listen("FIRST"))
	}
	sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "STATUS=first")
	if is("SAY") {
		sdnotify.Send(os.Getenv("NOTIFY_SOCKET"), "READY=1")
	}
	var second net.Listener
	if is("SECOND") {
		second = serve(listen("ADDRESS"))
	}
	for s := range signals {
		switch {
		case s == unix.SIGTERM:
			busy.Wait()
			return 0
		case s == unix.SIGUSR1:
			second = serve(listen("ADDRESS"))
		case second != nil:
			second.Close()
		}
	}
	return 0
}

// twoWorld is a service of that program, whose first generation serves.
func twoWorld(t *testing.T, env ...string) (w *world, first string) {
	t.Helper()
	cfg := base("two-ports", BindContract)
	first, second := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	cfg.Command.Env = append(append(cfg.Command.Env, "FIRST="+first, "ADDRESS="+second), env...)
	cfg.Fleet.ReadyTimeout, cfg.Fleet.Slots = time.Minute, 1
	cfg.MayDrop = func(at netip.AddrPort, _ string) bool {
		return slices.Contains(env, "MAY_DROP") && at.String() == second
	}
	cfg.Reread = func() (Live, []string, error) {
		live := cfg.Live
		if slices.Contains(env, "FAILS") {
			live.Fleet.ReadyTimeout = 3 * time.Second
		}
		if slices.Contains(env, "BROKEN") {
			live.Command.Args = []string{"./no-such-program"}
		}
		return live, nil, nil
	}
	w = run(t, cfg)
	w.await("cluster.started")
	w.at = netip.MustParseAddrPort(second)
	return w, first
}

func (w *world) signalAll(gen int, name string) {
	w.t.Helper()
	for _, o := range w.status().Workers {
		if o.Generation == gen {
			if err := w.control.Signal(w.t.Context(), o.Worker, name); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// At the first start both addresses are waited for.
func TestFirstStartSettles(t *testing.T) {
	w, first := twoWorld(t, "SECOND=1")
	if line := w.await("cluster.started"); !strings.Contains(line, first) || !strings.Contains(line, w.at.String()) {
		t.Errorf("%s", line)
	}
}

// The metrics port first, the main port never: the old generation serves on, and it is said
// what is missing.
func TestReloadWithoutAnAddress(t *testing.T) {
	for _, say := range []string{"", "SAY=2"} {
		t.Run(say, func(t *testing.T) {
			w, _ := twoWorld(t, "SECOND=1", say, "FAILS")
			w.control.Reload(t.Context())
			w.await("cluster.failed", "generation=2", "not ready within 3s", "not on "+w.at.String()+", which generation 1 serves", "--may-drop "+w.at.String())
			if _, gen, _ := w.ask("who"); gen != 1 {
				t.Errorf("generation %d answers", gen)
			}
			if r := w.status().Reload; r.Outcome != api.OutcomeFailed || !strings.Contains(r.Reason, w.at.String()) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The main port late: it is waited for, whatever the worker has said.
func TestReloadWaitsForAnAddress(t *testing.T) {
	for _, say := range []string{"", "SAY=2"} {
		t.Run(say, func(t *testing.T) {
			w, _ := twoWorld(t, "SECOND=1", say)
			w.control.Reload(t.Context())
			w.await("worker.incomplete", "generation=2", "not on "+w.at.String()+", which generation 1 serves", "--may-drop "+w.at.String())
			if w.count("cluster.reloaded") > 0 {
				t.Error("it serves before it accepts")
			}
			w.signalAll(2, "USR1")
			w.await("cluster.reloaded", "generation=2")
			if _, gen, _ := w.ask("who"); gen != 2 {
				t.Errorf("generation %d answers", gen)
			}
		})
	}
}

func TestReloadMayDrop(t *testing.T) {
	w, first := twoWorld(t, "SECOND=1", "MAY_DROP")
	w.control.Reload(t.Context())
	if line := w.await("cluster.reloaded", "generation=2"); !strings.Contains(line, first) || strings.Contains(line, w.at.String()) {
		t.Errorf("it says %s", line)
	}
	if s := w.status(); s.State != api.StateServing || !s.Serves() {
		t.Errorf("%+v", s)
	}
}

// A probe that listens and closes is no service, neither at the first start nor later.
func TestProbe(t *testing.T) {
	cfg := base("two-ports", BindContract)
	cfg.Command.Env = append(cfg.Command.Env, "ADDRESS=127.0.0.1:"+freePort(t), "PROBE=1")
	cfg.Fleet.ReadyTimeout, cfg.Fleet.MaxFailures = time.Second, 1
	w := run(t, cfg)
	w.await("cluster.failed", "not ready within 1s")

	w, _ = twoWorld(t, "SECOND=1", "PROBE=2", "FAILS")
	w.control.Reload(t.Context())
	w.await("cluster.failed", "generation=2", "does not accept on", w.at.String())
	w.ask("who")
}

// What the program closes is served no longer: the status says so, the log once.
func TestUnservedAddress(t *testing.T) {
	w, _ := twoWorld(t, "SECOND=12")
	w.signalAll(1, "USR2")
	line := ""
	for end := time.Now().Add(testTimeout); line == "" && time.Now().Before(end); {
		if s := w.status(); !s.Serves() {
			if got := s.Unserved(); s.State != api.StateDegraded || len(got) != 1 || got[0] != w.at.String() {
				t.Fatalf("%+v", s)
			}
			line = w.await("address.unserved", w.at.String(), "handoff reload")
		}
	}
	if line == "" {
		t.Fatal("it says that it serves")
	}
	w.control.Reload(t.Context())
	w.await("cluster.reloaded", "generation=2")
	w.ask("who")
	if n := w.count("address.unserved"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// That the generation before keeps serving is said of what it serves.
func TestFailedReloadSaysWhatIsServed(t *testing.T) {
	w, _ := twoWorld(t, "SECOND=1", "BROKEN")
	w.signalAll(1, "USR2")
	for end := time.Now().Add(testTimeout); w.status().Serves(); {
		if time.Now().After(end) {
			t.Fatal("it says that it serves")
		}
	}
	w.control.Reload(t.Context())
	w.await("cluster.failed", "generation=2", "keeps serving; nobody accepts on "+w.at.String())
}

// Nobody asks for the status.
func TestUnservedAddressIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("sockets are looked at every 5 s")
	}
	w, _ := twoWorld(t, "SECOND=1")
	if err := w.control.Signal(t.Context(), 1, "USR2"); err != nil {
		t.Fatal(err)
	}
	w.await("address.unserved", w.at.String())
}

// The replacement of a crashed worker accepts on what that one did; if it does not come to
// that, it serves what it can, and what is missing is said.
func TestReplacementAcceptsOnEverything(t *testing.T) {
	for _, listens := range []bool{true, false} {
		t.Run(fmt.Sprint(listens), func(t *testing.T) {
			w, first := twoWorld(t)
			w.signalAll(1, "USR1")
			for end := time.Now().Add(testTimeout); len(w.status().Addresses) < 2 && time.Now().Before(end); {
			}
			_, _, pid := w.ask("who")
			unix.Kill(pid, unix.SIGKILL)
			w.await("worker.started", "worker=2")
			if listens {
				w.await("worker.status", "worker=2", "first")
				w.signalAll(1, "USR1")
				w.await("worker.ready", "worker=2")
				w.ask("who")
				return
			}
			w.await("worker.incomplete", "worker=2", w.at.String())
			w.await("worker.ready", "worker=2")
			second := w.at
			w.at = netip.MustParseAddrPort(first)
			w.ask("who")
			if got := w.status().Unserved(); len(got) != 1 || got[0] != second.String() {
				t.Errorf("not served: %v", got)
			}
		})
	}
}
