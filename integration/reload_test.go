package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// reloads does n reloads under load, each after the old generation is gone,
// and checks that nothing is left over.
func reloads(t *testing.T, w *world, cfg load.Config, n int) load.Result {
	t.Helper()
	workers := len(w.workers())
	run := w.load(cfg)
	run.Await(50, testTimeout)
	w.reload()
	w.retired(workers)
	before := w.ledger()
	for range n - 1 {
		w.reload()
		w.retired(workers)
	}
	after := w.ledger()
	r := w.nothingLost(run)
	if len(after) != len(before) {
		t.Errorf("descriptors after %d reloads: %d, before %d\n%v\n%v", n, len(after), len(before), after, before)
	}
	if pids := w.workers(); len(pids) != workers {
		t.Errorf("%d worker processes, want %d: %v", len(pids), workers, pids)
	}
	return r
}

func TestReloadsNewConnections(t *testing.T) {
	t.Parallel()
	for i := range times(3, 1) {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "4"}})
			r := reloads(t, w, load.Config{Clients: 16}, times(50, 10))
			if rate := float64(r.Requests) / r.Elapsed.Seconds(); rate < 1000 && *long {
				t.Errorf("only %.0f connections a second", rate)
			}
			w.stop()
		})
	}
}

func TestReloadsSlowAnswers(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4"}})
	slow := w.load(load.Config{Clients: 32, Path: "/?ms=300", Rate: paced(100)})
	reloads(t, w, load.Config{Clients: 16}, times(20, 4))
	w.nothingLost(slow)
	w.stop()
}

func TestReloadsKeepAlive(t *testing.T) {
	t.Parallel()
	for i := range times(3, 1) {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			w := start(t, example(t, "plain"))
			pausing := w.load(load.Config{Mode: load.KeepAlive, Clients: 32, Pause: 10 * time.Millisecond})
			reloads(t, w, load.Config{Mode: load.KeepAlive, Clients: 32}, times(50, 10))
			w.nothingLost(pausing)
			w.stop()
		})
	}
}

func TestReloadsStrategySlot(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4", "--strategy", "slot"}})
	run := w.load(load.Config{Clients: 16})
	for range times(20, 4) {
		w.reload()
		w.retired(4)
	}
	w.nothingLostMixed(run) // on purpose
	w.stop()
}

func TestReloadsSharedAndSticky(t *testing.T) {
	t.Parallel()
	for _, balance := range []string{"shared", "sticky"} {
		t.Run(balance, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "4", "--balance", balance}})
			run := w.load(load.Config{Clients: 16})
			for range times(20, 4) {
				w.reload()
				w.retired(4)
			}
			if balance == "shared" {
				w.nothingLostMixed(run) // generations overlap on the socket
			} else {
				w.nothingLost(run)
			}
			w.stop()
		})
	}
}

// Where the kernel refuses the program, generations overlap on their sockets,
// and still nothing is lost.
func TestReloadsWithoutSteering(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4", "--no-steering"}})
	run := w.load(load.Config{Clients: 16})
	for range times(20, 4) {
		w.reload()
		w.retired(4)
	}
	w.signal(syscall.SIGTTOU)
	w.retired(1)
	run.Await(100, testTimeout)
	w.nothingLostMixed(run)
	if len(w.all("address.hash")) != 1 {
		t.Error("the fallback is said once")
	}
	w.stop()
}

func TestOverlappingReloads(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4"}, env: []string{"BOOT_MS=200"}})
	run := w.load(load.Config{Clients: 16})
	for generation := 2; generation <= 11; generation++ { // two signals of a kind that are pending are one
		w.signal(syscall.SIGUSR2)
		w.awaitWhere("cluster.reloading", func(e event) bool { return e.Generation == generation })
	}
	w.awaitWhere("cluster.reloaded", func(e event) bool { return e.Generation == 11 })
	w.nothingLost(run)
	if n := len(w.all("cluster.reloading")); n != 10 {
		t.Errorf("%d reloads, want 10", n)
	}
	w.stop()
}

// release makes a folder with a symlink `current` to a version of a server.
func release(t *testing.T) (dir string, deploy func(source string)) {
	dir = t.TempDir()
	n := 0
	deploy = func(source string) {
		t.Helper()
		n++
		version := filepath.Join(dir, fmt.Sprintf("v%d", n))
		if err := os.Mkdir(version, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(version, "server.js"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "next")
		if err := os.Symlink(version, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "current")); err != nil {
			t.Fatal(err)
		}
	}
	return dir, deploy
}

func source(t *testing.T) string {
	b, err := os.ReadFile(data("server.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A deploy that cannot start: nobody notices, the reason is said, and the next
// deploy is possible. A crash meanwhile runs the old code.
func TestBrokenDeploy(t *testing.T) {
	t.Parallel()
	dir, deploy := release(t)
	good := source(t)
	deploy(good)
	w := start(t, options{flags: []string{"-n", "2", "--cwd", filepath.Join(dir, "current"), "--respawn", "0.1"}, app: []string{"server.js"}})
	run := w.load(load.Config{Clients: 8})
	deploy("require('./db')\n")
	w.signal(syscall.SIGUSR2)
	e := w.await("cluster.failed")
	if !strings.Contains(e.Stderr, "Cannot find module './db'") || e.Level != "ERROR" {
		t.Errorf("the failure does not say why: %+v", e)
	}
	run.Await(100, testTimeout)

	syscall.Kill(w.workers()[0], syscall.SIGKILL)
	crashed := w.await("worker.crashed")
	if e := w.await("worker.ready"); e.Slot != crashed.Slot || e.Generation != 1 {
		t.Errorf("after a crash slot %d of generation %d serves, want slot %d of generation 1", e.Slot, e.Generation, crashed.Slot)
	}

	os.Remove(filepath.Join(dir, "current"))
	w.signal(syscall.SIGUSR2)
	if e := w.await("cluster.failed"); !strings.Contains(e.Reason, "no such file") {
		t.Errorf("a missing folder: %+v", e)
	}
	deploy(good)
	w.reload()
	w.retired(2)
	r := run.Stop()
	t.Log(r)
	if n := r.Failed[load.Refused] + r.Failed[load.Timeout] + r.Failed[load.Status] + r.Failed[load.Order] + r.Failed[load.Other]; n > 0 || r.Lost() > 8 {
		t.Errorf("%d requests lost; want those inside the killed worker at most", r.Lost())
	}
	w.stop()
}

// The link is in the arguments, not in --cwd: what was switched does not run before a
// reload, whichever process was killed.
func TestSwitchedLinkInTheArguments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	release := func(v string) {
		os.Mkdir(filepath.Join(dir, v), 0o755)
		put(t, filepath.Join(dir, v, "app.py"), pyserver+"H.do_GET = lambda h: (h.send_response(200), h.end_headers(), h.wfile.write(b'"+v+"'))\n"+
			"http.server.HTTPServer(('127.0.0.1', port), H).serve_forever()\n", 0o644)
		os.Symlink(v, current+".new")
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	release("v1")
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1", "--respawn", "0.1", "--ready-delay", "0"}, app: []string{"python3", current + "/app.py"}, env: []string{"PORT=" + port}})
	release("v2")
	crash := func() {
		t.Helper()
		syscall.Kill(w.workers()[0], syscall.SIGKILL)
		w.await("worker.crashed")
		w.await("worker.ready")
		if got := w.answer("/"); got != "v1" {
			t.Errorf("after a crash %q answers, which nobody has reloaded", got)
		}
	}
	crash()
	w.killMaster()
	crash()
	w.reload()
	if got := w.answer("/"); got != "v2" {
		t.Errorf("after the reload %q answers", got)
	}
	w.stop()
}

// gunicorn listens before it has loaded what it serves: that it listens is not enough.
// The delay is longer than the default of 1 s, so that a busy machine, on which gunicorn
// takes longer to fail, does not decide.
func TestBrokenBehindAListener(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gunicorn"); err != nil {
		t.Skip("no gunicorn")
	}
	dir, port := t.TempDir(), freePort(t)
	app := filepath.Join(dir, "app.py")
	good := "def app(environ, start):\n    start('200 OK', [('Content-Length', '3')])\n    return [b'ok\\n']\n"
	write := func(text string) {
		if err := os.WriteFile(app, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	w := start(t, options{flags: []string{"-n", "2", "--respawn", "0.1", "--max-failures", "1", "--ready-delay", "5s"}, dir: dir,
		app: []string{"gunicorn", "-w", "1", "--threads", "2", "-b", "127.0.0.1:" + port, "app:app"}})
	run := w.load(load.Config{Clients: 4})
	run.Await(100, testTimeout) // by all that serve
	write("raise RuntimeError('no database')\n")
	w.signal(syscall.SIGUSR2)
	if e := w.await("cluster.failed"); !strings.Contains(e.Stderr, "no database") {
		t.Errorf("the failure does not say why: %+v", e)
	}
	run.Await(50, testTimeout)
	write(good)
	w.reload()
	w.retired(2)
	w.nothingLost(run)
	w.stop()
}

// With nothing to fall back to, handoff gives up and says why.
func TestFirstGenerationBroken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "app.js")
	os.WriteFile(app, []byte("throw new Error('no database')\n"), 0o644)
	w := launch(t, options{flags: []string{"-n", "1", "--respawn", "0.1", "--max-failures", "2"}, app: []string{app}})
	e := w.await("cluster.failed")
	if !strings.Contains(e.Stderr, "no database") {
		t.Errorf("%+v", e)
	}
	w.exits(1)
	if !strings.Contains(w.stderr(), "Error: no database") {
		t.Error("the worker's stderr is not passed through")
	}
}

// No request waits for a slow boot.
func TestSlowBoot(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--ready-when", "ready"}, env: []string{"READY=1", "BOOT_MS=3000"}})
	run := w.load(load.Config{Clients: 8})
	w.reload()
	w.retired(2)
	r := w.nothingLost(run)
	if most := time.Duration(r.Latency.Max()) * time.Microsecond; most > 1500*time.Millisecond {
		t.Errorf("a request took %v: did it wait for the boot?", most)
	}
	w.stop()
}

// A request of 3 s that is in flight finishes across a reload.
func TestLongRequest(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}})
	type answer struct {
		body string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		resp, err := fresh.Get("http://" + w.addr + "/?ms=3000")
		if err != nil {
			done <- answer{"", err}
			return
		}
		b, err := io.ReadAll(resp.Body)
		done <- answer{string(b), err}
	}()
	// It is in flight once its connection is accepted; one more request on
	// the same worker comes after it.
	run := w.load(load.Config{Clients: 1})
	run.Await(20, testTimeout)
	run.Stop()
	w.reload()
	if a := <-done; a.err != nil || a.body != "slow\n" {
		t.Errorf("%q, %v", a.body, a.err)
	}
	w.retired(1)
	w.stop()
}

// A worker that ignores everything is killed in time, and its children too.
func TestStubbornWorkerIsKilled(t *testing.T) {
	t.Parallel()
	w := start(t, options{
		flags: []string{"-n", "1", "--drain-timeout", "1s", "--kill-grace", "1s"},
		app:   []string{data("stubborn.js")},
	})
	resp, err := fresh.Get("http://" + w.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	var child int
	fmt.Sscan(string(b), &child)
	if syscall.Kill(child, 0) != nil {
		t.Fatalf("no child %d", child)
	}
	w.reload()
	if e := w.await("worker.terminated"); e.Generation != 1 {
		t.Errorf("%+v", e)
	}
	if e := w.await("worker.killed"); e.Generation != 1 {
		t.Errorf("%+v", e)
	}
	w.retired(1)
	for deadline := time.After(testTimeout); syscall.Kill(child, 0) == nil && !zombie(child); {
		select {
		case <-deadline:
			t.Fatalf("the child %d of a killed worker lives", child)
		case <-time.After(time.Millisecond):
		}
	}
	w.stop()
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}
