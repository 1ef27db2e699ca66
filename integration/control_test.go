package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"handoff/internal/load"
)

// controlled is a handoff with a control socket of its own, and the commands to it.
func controlled(t *testing.T, o options) (w *world, command func(code int, args ...string) (out, errs string)) {
	t.Helper()
	env := []string{"HANDOFF_RUNTIME_DIR=" + t.TempDir()}
	o.env = append(o.env, env...)
	w = start(t, o)
	return w, func(code int, args ...string) (string, string) {
		t.Helper()
		out, errs, got := handoff(t, env, args...)
		if got != code {
			t.Fatalf("handoff %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out, errs
	}
}

// contains checks an output.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in:\n%s", p, text)
		}
	}
}

// The commands tell the truth: done when it is done, and else why not.
func TestCommands(t *testing.T) {
	t.Parallel()
	app := filepath.Join(t.TempDir(), "app.js")
	good := "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)"
	put(t, app, good, 0o644)
	w, command := controlled(t, options{flags: []string{"-n", "2", "--name", "web", "--max-failures", "1"}, app: []string{app}, env: []string{"PORT=" + freePort(t)}})
	run := w.load(load.Config{Clients: 4})
	out, _ := command(0, "wait", "--timeout", "10s")
	contains(t, out, "web: 2 of 2 slots ready")
	out, _ = command(0, "reload")
	contains(t, out, "web: generation 1 → 2", "web: generation 2 serves, after ")
	if n := len(w.all("cluster.reloaded")); n != 1 {
		t.Errorf("%d reloads are done when the command returns", n)
	}
	out, _ = command(0, "scale", "+1")
	contains(t, out, "web: 3 workers")
	out, _ = command(0, "scale", "-1", "--json")
	var scaled struct{ Schema, Workers int }
	if json.Unmarshal([]byte(out), &scaled) != nil || scaled.Schema != 1 || scaled.Workers != 2 {
		t.Errorf("%s", out)
	}
	_, errs := command(1, "scale", "0")
	contains(t, errs, "0 workers: want 1 to 1024")
	_, errs = command(2, "scale", "many")
	contains(t, errs, "cannot scale to \"many\"")
	out, _ = command(0, "restart", "1")
	contains(t, out, "web: slot 1 serves, pid ")
	_, errs = command(1, "restart", "7")
	contains(t, errs, "no slot 7: slots are 0 to 1")

	put(t, app, "console.error('no such module: db'); process.exit(3)", 0o644)
	_, errs = command(1, "reload")
	contains(t, errs, "no such module: db", "generation 3 failed after ", "exited with code 3; generation 2 keeps serving")
	out, _ = command(0, "status")
	contains(t, out, "web: serving, 2 of 2 slots ready, generation 2", "last error: generation 3 failed")
	out, _ = command(0, "events", "--last", "1000", "--json")
	contains(t, out, `"event":"cluster.failed"`, `"event":"cluster.scaled"`)
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
	put(t, app, good, 0o644)
	out, _ = command(0, "reload", "--json")
	var reloaded struct {
		Outcome string
		Seconds float64
	}
	if json.Unmarshal([]byte(out), &reloaded) != nil || reloaded.Outcome != "served" || reloaded.Seconds <= 0 {
		t.Errorf("%s", out)
	}
	out, _ = command(0, "ls")
	contains(t, out, "NAME", "web   serving  2/2")
	w.nothingLost(run)
	out, _ = command(0, "stop")
	contains(t, out, "web: stopped")
	w.exits(0)
	for _, args := range [][]string{{"reload"}, {"status"}, {"scale", "1"}, {"stop"}, {"events"}, {"restart", "0"}, {"upgrade"}} {
		_, errs := command(3, args...)
		contains(t, errs, "handoff is not running")
	}
	_, errs = command(3, "wait", "--timeout", "200ms")
	contains(t, errs, "not ready within 200ms")
}

// A reload during a reload is joined: both commands wait, and say the same.
func TestReloadsTogether(t *testing.T) {
	t.Parallel()
	w, command := controlled(t, options{flags: []string{"-n", "2"}})
	done := make(chan string, 2)
	for range 2 {
		go func() {
			out, _ := command(0, "reload")
			done <- out
		}()
	}
	for range 2 {
		contains(t, <-done, "serves, after")
	}
	w.stop()
}

// Who follows the events hears of masters that come after, too.
func TestEventsOverMasters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, options{flags: []string{"-n", "1"}, env: []string{"HANDOFF_RUNTIME_DIR=" + dir}})
	file := filepath.Join(t.TempDir(), "events")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := handoffCommand([]string{"HANDOFF_RUNTIME_DIR=" + dir}, "events", "--follow", "--json")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	awaitFile(t, file, "cluster.started")
	w.killMaster()
	for deadline := time.Now().Add(testTimeout); ; {
		w.reload()
		b, _ := os.ReadFile(file)
		if strings.Contains(string(b), "cluster.reloaded") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s", b)
		}
	}
	w.stop()
}
