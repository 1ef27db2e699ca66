package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/load"
)

func command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

func TestStopSignals(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "2"}})
			done := make(chan error, 1)
			go func() {
				resp, err := fresh.Get("http://" + w.addr + "/?ms=1000")
				if err == nil {
					resp.Body.Close()
				}
				done <- err
			}()
			// One worker more, to have an order: the request is in before.
			run := w.load(load.Config{Clients: 2})
			run.Await(50, testTimeout)
			run.Stop()
			w.signal(s)
			w.exits(0)
			if err := <-done; err != nil {
				t.Errorf("the request in flight: %v", err)
			}
			if _, err := fresh.Get("http://" + w.addr + "/"); err == nil {
				t.Error("somebody answers after the stop")
			}
		})
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{data("stubborn.js")}})
	w.signal(syscall.SIGTERM)
	w.await("worker.draining")
	w.signal(syscall.SIGINT)
	w.exits(128 + int(syscall.SIGINT))
}

// A service manager with KillMode=control-group signals everybody: master and
// keeper mean one signal, and the master's own copy is not a second one.
func TestStopOfTheWholeGroup(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--keepalive-linger", "100ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t)}})
	answered := make(chan error, 1)
	go func() {
		resp, err := fresh.Get("http://" + w.addr + "/?ms=1500")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	run := w.load(load.Config{Clients: 4})
	run.Await(50, testTimeout)
	run.Stop()
	pids := append(w.workers(), w.master(), w.pid())
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	w.exits(0)
}

func TestScaleBySignal(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}})
	run := w.load(load.Config{Clients: 16})
	for range times(20, 4) {
		w.signal(syscall.SIGTTIN)
		if e := w.await("worker.ready"); e.Slot != 2 {
			t.Errorf("slot %d is the new one", e.Slot)
		}
		run.Await(100, testTimeout)
		w.signal(syscall.SIGTTOU)
		w.retired(1)
	}
	w.nothingLost(run)
	if n := len(w.workers()); n != 2 {
		t.Errorf("%d workers", n)
	}
	w.signal(syscall.SIGTTOU)
	w.retired(1)
	w.signal(syscall.SIGTTOU)
	w.awaitWhere("cluster.scaled", func(e event) bool { return e.Level == "WARN" })
	if n := len(w.workers()); n != 1 {
		t.Errorf("%d workers", n)
	}
	w.stop()
}

// HUP reloads too, and an edited environment file counts.
func TestHangupReadsTheEnvironmentFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "env")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("GREETING=one\nEXTRA=x\n")
	w := start(t, options{flags: []string{"-n", "1", "--env-file", file}, app: []string{script(t,
		"require('http').createServer((q, r) => r.end(process.env.GREETING + ' ' + process.env.EXTRA)).listen(0)")}})
	if got := get(t, fresh, "http://"+w.addr+"/"); got != "one x" {
		t.Errorf("%q", got)
	}
	write("GREETING=two\n") // a removed key disappears
	w.signal(syscall.SIGHUP)
	w.await("cluster.reloaded")
	if got := get(t, fresh, "http://"+w.addr+"/"); got != "two undefined" {
		t.Errorf("%q", got)
	}
	write("THIS IS A SECRET AND NO ENVIRONMENT\n")
	w.signal(syscall.SIGHUP)
	if e := w.await("cluster.failed"); strings.Contains(fmt.Sprint(e), "SECRET") || !strings.Contains(e.Reason, file) {
		t.Errorf("%+v", e)
	}
	w.stop()
}

func TestLogFileIsReopened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	pidFile := filepath.Join(dir, "pid")
	w := launch(t, options{flags: []string{"-n", "1", "--log-file", log, "--pid-file", pidFile}, app: []string{script(t, `
process.on('SIGUSR1', () => console.error('worker got SIGUSR1'))
require('http').createServer((q, r) => r.end()).listen(0, () => console.error('worker listens'))`)}})
	w.awaitLine("worker listens")
	b, err := os.ReadFile(pidFile)
	if err != nil || strings.TrimSpace(string(b)) != fmt.Sprint(w.pid()) {
		t.Errorf("pid file %q, %v", b, err)
	}
	os.Rename(log, log+".1")
	w.signal(syscall.SIGUSR1)
	awaitFile(t, log, "Log file reopened")
	w.stop()
	if b, _ := os.ReadFile(log); !strings.Contains(string(b), "Stopped") {
		t.Errorf("the new log file has %q", b)
	}
	if strings.Contains(w.stderr(), "SIGUSR1") {
		t.Error("SIGUSR1 was forwarded")
	}
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Error("the pid file is left behind")
	}
}

// Text for people: one line an event, no colour without a terminal.
func TestTextLog(t *testing.T) {
	t.Parallel()
	w := launch(t, options{flags: []string{"-n", "1", "--log", "text"}})
	w.awaitLine("Generation serves")
	w.stop()
	if out := w.stderr(); strings.Contains(out, "\x1b") || !strings.Contains(out, "INF Worker serves slot=0 pid=") || strings.Contains(out, "event=") {
		t.Errorf("%s", out)
	}
}

// Workers' stdout passes through untouched, and nothing of handoff's is in it.
func TestStdoutIsTheProgramsOwn(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{script(t,
		"process.stdout.write(Buffer.from([0xff, 0, 10, 0x41])); require('http').createServer().listen(0)")}})
	w.stop()
	if got := w.out.String(); got != "\xff\x00\nA" {
		t.Errorf("%q", got)
	}
}

// Usage errors end with 2, others with 1; each says what to do.
func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"run", 2, "nothing to run"},
		{"run --nonsense x.js", 2, "--help"},
		{"run -n 0 x.js", 2, "max-1"},
		{"run -n max-x x.js", 2, "max-1"},
		{"run --ready-when soon x.js", 2, "listening, started, ready"},
		{"run --drain-timeout soon x.js", 2, "30s"},
		{"run --backoff 1 --respawn 2 x.js", 2, "must not be less"},
		{"run --env SECRET x.js", 2, "KEY=VALUE"},
		{"server.js", 2, "did you mean `handoff run server.js`"},
		{"run missing.js", 1, "no such file in " + dir},
		{"run --cwd /nonexistent missing.js", 1, "not a directory"},
		{"run -n 1 no-such-program", 1, "cannot run no-such-program"},
	} {
		cmd := command(binary, strings.Fields(c.args)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("handoff %s: exit code %d, want %d with %q\n%s", c.args, cmd.ProcessState.ExitCode(), c.code, c.want, out)
		}
	}
	out, err := command(binary, "run", "--help").Output()
	if err != nil || !strings.Contains(string(out), "Examples:") {
		t.Errorf("%v\n%s", err, out)
	}
	cmd := command(binary, "run", "x.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HANDOFF_READY_TIMEOUT=never")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "HANDOFF_READY_TIMEOUT") {
		t.Errorf("%s", out)
	}
}
