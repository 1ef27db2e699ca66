package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// configured is a handoff that runs by the file of a folder.
func configured(t *testing.T, text string, flags, env []string) (w *world, file string, command func(code int, args ...string) (string, string)) {
	t.Helper()
	return configuredBy(t, binary, text, flags, env)
}

func configuredBy(t *testing.T, binary, text string, flags, env []string) (w *world, file string, command func(code int, args ...string) (string, string)) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "handoff.toml")
	put(t, filepath.Join(dir, "app.js"), "require('http').createServer((q, r) => r.end(process.env.WHO || '')).listen(process.env.PORT)", 0o644)
	put(t, file, text, 0o644)
	env = append(env, "HANDOFF_RUNTIME_DIR="+t.TempDir())
	w = launch(t, options{bare: true, binary: binary, dir: dir, flags: append([]string{"run", "--log", "json"}, flags...), env: append(env, "PORT="+freePort(t))})
	e := w.await("cluster.started")
	w.addr = "127.0.0.1:" + e.Addresses[strings.LastIndexByte(e.Addresses, ':')+1:]
	return w, file, func(code int, args ...string) (string, string) {
		t.Helper()
		out, errs, got := handoff(t, env, args...)
		if got != code {
			t.Fatalf("handoff %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out, errs
	}
}

// What can change while it runs does so at a reload; what is wrong changes nothing.
func TestConfigurationChanges(t *testing.T) {
	t.Parallel()
	w, file, command := configured(t, "command = \"app.js\"\nworkers = 1\n[env]\nWHO = \"one\"\n", []string{"--keepalive-linger", "200ms"}, nil)
	if got := w.answer("/"); got != "one" {
		t.Errorf("%q", got)
	}
	put(t, file, "command = \"app.js\"\nworkers = 2\nname = \"other\"\n[env]\nWHO = \"two\"\n", 0o644)
	w.signal(syscall.SIGHUP)
	if e := w.await("config.later"); !strings.Contains(e.Msg, "name") {
		t.Errorf("%+v", e)
	}
	w.await("cluster.reloaded")
	w.settled(2)
	if got := w.answer("/"); got != "two" {
		t.Errorf("%q", got)
	}
	put(t, file, "command = \"app.js\"\nworkers = 3\nreddy_when = \"ready\"\n", 0o644)
	_, errs := command(1, "reload")
	contains(t, errs, "handoff.toml:3:1: unknown key \"reddy_when\"; did you mean \"ready_when\"?")
	w.signal(syscall.SIGUSR2)
	w.await("config.failed")
	w.signal(syscall.SIGHUP)
	w.await("config.failed")
	// A master that comes now has what the file had before, and not less.
	w.killMaster()
	if got := w.workers(); len(got) != 2 {
		t.Errorf("%v", got)
	}
	// What is scaled by hand stays, as long as the file says nothing else.
	put(t, file, "command = \"app.js\"\nworkers = 2\n[env]\nWHO = \"three\"\n", 0o644)
	command(0, "reload")
	command(0, "scale", "+1")
	command(0, "reload")
	w.settled(3)
	if got := w.answer("/"); got != "three" {
		t.Errorf("%q", got)
	}
	w.stop()
}

// Flags win over the environment, and that over the file.
func TestConfigurationOrder(t *testing.T) {
	t.Parallel()
	w, _, _ := configured(t, "command = \"app.js\"\nworkers = 1\nname = \"file\"\nkeepalive_linger = 1\n", []string{"-n", "3"}, []string{"HANDOFF_WORKERS=2", "HANDOFF_NAME=environment"})
	if got := w.workers(); len(got) != 3 {
		t.Errorf("%d workers, want those of the flag", len(got))
	}
	if got := environ(w.workers()[0], "HANDOFF_SERVICE"); !strings.HasPrefix(got, "environment@/") {
		t.Errorf("name %q, want the environment's", got)
	}
	if got := environ(w.workers()[0], "HANDOFF_KEEPALIVE_LINGER"); got != "1s" {
		t.Errorf("linger %q, want the file's", got)
	}
	w.stop()
}

// init, check and schema; no port is touched.
func TestInitAndCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(code int, args ...string) (string, string) {
		t.Helper()
		cmd := handoffCommand(nil, args...)
		cmd.Dir = dir
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("handoff %v: exit code %d, want %d\n%s%s", args, got, code, &out, &errs)
		}
		return out.String(), errs.String()
	}
	_, errs := in(2, "check")
	contains(t, errs, "handoff init")
	put(t, filepath.Join(dir, "server.js"), "process.exit(9)", 0o644)
	in(0, "init", "server.js")
	_, errs = in(1, "init", "server.js")
	contains(t, errs, "already exists (use --force to overwrite)")
	out, _ := in(0, "check")
	contains(t, out, "handoff.toml: OK", "node server.js", "by the node contract")
	// Every line of the sample is right once it is no comment.
	b, err := os.ReadFile(filepath.Join(dir, "handoff.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if key, _, ok := strings.Cut(line, " = "); ok && strings.HasPrefix(key, "# ") && !strings.Contains(key[2:], " ") || strings.HasPrefix(line, "# [") {
			line = line[2:]
		}
		lines = append(lines, line)
	}
	put(t, filepath.Join(dir, "handoff.toml"), strings.Join(lines, ""), 0o644)
	in(0, "check")
	for text, want := range map[string]string{
		"command = \"server.js\"\nworkers = 0":            "handoff.toml",
		"command = \"missing.js\"":                        "cannot run missing.js: no such file",
		"command = \"server.js\"\nready_when = \"up\"":    "handoff.toml:2:1: ready_when: want one of listening, started, ready",
		"command = \"server.js\"\nno_preload = 1":         "handoff.toml:2:1: no_preload: want true or false",
		"command = \"server.js\"\nname = [\"a\"]":         "handoff.toml:2:1: name: want one value, not a list",
		"command = \"server.js\"\nworkers = 1\nworkers=2": "handoff.toml:3:1:",
		"command = \"server.js\"\n[watch]\nx = 1":         "handoff.toml:2:2: unknown table [watch]",
		"command = \"server.js\"\nready-when = \"ready\"": "did you mean \"ready_when\"?",
		"command = ": "handoff.toml:1:",
	} {
		put(t, filepath.Join(dir, "handoff.toml"), text, 0o644)
		cmd := handoffCommand(nil, "check")
		cmd.Dir = dir
		b, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code == 0 || strings.Count(string(b), "\n") != 1 {
			t.Errorf("%q: exit code %d, %s", text, code, b)
		}
		contains(t, string(b), want)
	}
}

// With watch, a change of a file is a reload; one of the configuration acts at once,
// and a wrong one does not.
func TestWatch(t *testing.T) {
	t.Parallel()
	text := "command = \"app.js\"\nworkers = 1\nkeepalive_linger = 0.1\nwatch = [\"**/*.js\", \"!node_modules/**\"]\nwatch_delay = \"100ms\"\n[env]\nWHO = \"%s\"\n"
	w, file, _ := configured(t, strings.Replace(text, "%s", "one", 1), nil, nil)
	app := filepath.Join(filepath.Dir(file), "app.js")
	b, err := os.ReadFile(app)
	if err != nil {
		t.Fatal(err)
	}
	put(t, app, strings.Replace(string(b), "process.env.WHO", "'edited ' + process.env.WHO", 1), 0o644)
	w.await("cluster.changed")
	w.await("cluster.reloaded")
	if got := w.answer("/"); got != "edited one" {
		t.Errorf("%q", got)
	}
	put(t, file, strings.Replace(text, "%s", "two", 1), 0o644)
	w.await("cluster.changed")
	w.await("cluster.reloaded")
	if got := w.answer("/"); got != "edited two" {
		t.Errorf("%q", got)
	}
	put(t, file, "nonsense", 0o644)
	w.await("config.failed")
	put(t, file, strings.Replace(text, "%s", "three", 1), 0o644)
	w.await("cluster.reloaded")
	w.killMaster() // the next one watches, too, as soon as it has adopted
	for before := len(w.all("cluster.changed")); len(w.all("cluster.changed")) == before; {
		put(t, app, "process.exit(3)", 0o644)
		select {
		case <-w.more:
		case <-time.After(300 * time.Millisecond):
		}
	}
	w.await("cluster.failed")
	if got := w.answer("/"); got != "edited three" {
		t.Errorf("%q", got)
	}
	w.stop()
}

// With everything watched, handoff's own files and a log that it is redirected to are no
// changes, and what the workers write when they start is left out; edits go on counting.
func TestWatchWithoutEdits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "app.js")
	source := "console.log('starts'); require('fs').writeFileSync('started.json', String(process.pid))\n" +
		"require('http').createServer((q, r) => { console.log('asked'); r.end('%s') }).listen(process.env.PORT)\n"
	put(t, app, fmt.Sprintf(source, "one"), 0o644)
	w := start(t, options{dir: dir, app: []string{"app.js"}, behind: []string{"sh", "-c", `exec "$0" "$@" >web.txt`},
		flags: []string{"-n", "1", "--keepalive-linger", "0.1", "--watch", "**", "--watch-delay", "100ms", "--pid-file", "web.pid"}})
	put(t, app, fmt.Sprintf(source, "two"), 0o644)
	if e := w.await("watch.omitted"); filepath.Base(e.File) != "started.json" {
		t.Errorf("%s is left out", e.File)
	}
	put(t, app, fmt.Sprintf(source, "three"), 0o644)
	w.awaitWhere("cluster.changed", func(e event) bool { return strings.HasPrefix(filepath.Base(e.File), "app.js") })
	w.await("cluster.reloaded")
	if got := w.answer("/"); got != "three" {
		t.Errorf("%q", got)
	}
	put(t, app, fmt.Sprintf(source, "four"), 0o644)
	w.awaitWhere("cluster.changed", func(e event) bool { return strings.HasPrefix(filepath.Base(e.File), "app.js") }) // nothing else in between
	omitted := false
	w.mu.Lock()
	for _, e := range w.events {
		omitted = omitted || e.Name == "watch.omitted"
		if base := filepath.Base(e.File); e.Name == "cluster.changed" && !strings.HasPrefix(base, "app.js") && (base != "started.json" || omitted) {
			t.Errorf("%s has changed (left out before: %v)", e.File, omitted)
		}
	}
	w.mu.Unlock()
	if n := len(w.all("cluster.changed")); n > 12 {
		t.Errorf("%d reloads", n)
	}
	w.stop()
}

// An app of PM2's that listens on nothing has started when it runs.
func TestPM2WithoutPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "queue.js"), "setInterval(() => {}, 1000)", 0o644)
	put(t, filepath.Join(dir, "once.js"), "", 0o644)
	put(t, filepath.Join(dir, "ecosystem.json"), `{"apps": [{"name": "queue", "script": "queue.js", "exec_mode": "fork"}, {"name": "once", "script": "once.js", "autorestart": false}]}`, 0o644)
	env := []string{"HANDOFF_RUNTIME_DIR=" + filepath.Join(dir, "run")}
	w := start(t, options{bare: true, dir: dir, env: env, flags: []string{"run", "--log", "json", "--only", "queue", filepath.Join(dir, "ecosystem.json")}})
	w.reload()
	w.signal(syscall.SIGTERM)
	w.exits(0)
	_, errs, code := handoff(t, env, "run", "--only", "once", filepath.Join(dir, "ecosystem.json"))
	if code == 0 {
		t.Error("an app that is to end is a service")
	}
	contains(t, errs, `app "once": autorestart: false cannot be had`)
}

// The balance changes at once, for new connections, and nothing is lost by it.
func TestBalanceChanges(t *testing.T) {
	t.Parallel()
	text := "command = \"app.js\"\nworkers = 3\nkeepalive_linger = 0.1\nbalance = \"even\"\n[env]\nWHO = \"x\"\n"
	w, file, command := configured(t, text, nil, nil)
	run := w.load(load.Config{Clients: 8})
	put(t, filepath.Join(filepath.Dir(file), "app.js"), "require('http').createServer((q, r) => r.end(String(process.pid))).listen(process.env.PORT)", 0o644)
	spread := func() int {
		pids := map[string]bool{}
		for range 60 {
			pids[w.answer("/")] = true
		}
		return len(pids)
	}
	command(0, "reload")
	if n := spread(); n != 3 {
		t.Errorf("%d workers answer one client with even", n)
	}
	put(t, file, strings.Replace(text, "even", "sticky", 1), 0o644)
	command(0, "reload")
	if n := spread(); n != 1 {
		t.Errorf("%d workers answer one client with sticky", n)
	}
	w.killMaster()
	if n := spread(); n != 1 {
		t.Errorf("%d workers answer one client with sticky, after a death of the master", n)
	}
	put(t, file, strings.Replace(text, "even", "shared", 1), 0o644)
	command(0, "reload")
	if e := w.await("config.later"); !strings.Contains(e.Msg, "balance") {
		t.Errorf("%+v", e)
	}
	put(t, file, text, 0o644)
	command(0, "reload")
	if n := spread(); n != 3 {
		t.Errorf("%d workers answer one client with even again", n)
	}
	w.nothingLost(run)
	w.signal(syscall.SIGTERM)
	w.await("cluster.stopped")
}

// What the file says is put into effect by a reload, by none that crashes: not by the
// next master, nor by the next keeper, also where the file is gone; and an upgrade
// reloads what the file says then.
func TestConfigurationOverMasters(t *testing.T) {
	t.Parallel()
	text := "command = \"app.js\"\nworkers = 2\nkeepalive_linger = 0.1\npid_file = \"pid\"\n[env]\nWHO = \"%s\"\n"
	own := filepath.Join(t.TempDir(), "handoff")
	copyFile(t, binary, own)
	w, file, command := configuredBy(t, own, strings.Replace(text, "%s", "one", 1), nil, nil)
	put(t, file, strings.Replace(strings.Replace(text, "%s", "two", 1), "workers = 2", "workers = 3", 1), 0o644)
	w.killMaster()
	victim := w.workers()[0]
	syscall.Kill(victim, syscall.SIGKILL)
	w.await("worker.crashed")
	w.await("worker.ready")
	for range 8 {
		if got := w.answer("/"); got != "one" {
			t.Errorf("%q before the reload", got)
		}
	}
	command(0, "reload")
	w.settled(3)
	if got := w.answer("/"); got != "two" {
		t.Errorf("%q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.killMaster()
	w.killKeeper(filepath.Join(filepath.Dir(file), "pid"))
	_, errs := command(1, "reload")
	contains(t, errs, "handoff.toml")
	if got := w.answer("/"); got != "two" {
		t.Errorf("%q", got)
	}
	// An upgrade with the reload: the file of now.
	put(t, filepath.Join(filepath.Dir(file), "other.js"), "require('http').createServer((q, r) => r.end('other')).listen(process.env.PORT)", 0o644)
	put(t, file, strings.Replace(text, "app.js", "other.js", 1), 0o644)
	copyFile(t, binary, own+".new")
	appendTo(t, own+".new", "x")
	if err := os.Rename(own+".new", own); err != nil {
		t.Fatal(err)
	}
	command(0, "reload")
	w.await("master.upgraded")
	if got := w.answer("/"); got != "other" {
		t.Errorf("%q", got)
	}
	w.signal(syscall.SIGTERM)
	w.await("cluster.stopped")
}
