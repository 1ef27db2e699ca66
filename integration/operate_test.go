package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// Start conditions, hooks, recycling and captured output.

type conditions struct {
	UID, GID, Groups, Umask, CPUs, Caps, Limits, Cgroup, Stdin, Slot, Home, User, Logname, NNP string
	Nice                                                                                       int
}

func TestStartConditions(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a change of user needs root")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	for contract, app := range map[string][]string{
		"node": {data("conditions.js")},
		"bind": {"sh", "-c", "exec node " + data("conditions.js")},
	} {
		t.Run(contract, func(t *testing.T) {
			t.Parallel()
			// A file that the user may read, in folders that it may enter.
			flags := []string{"-n", "2", "--user", "nobody", "--umask", "027", "--nice", "5", "--rlimit", "nofile=1234:2345", "--rlimit", "core=0", "--cpu-affinity", "0"}
			root := t.TempDir()
			for dir := root; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
				os.Chmod(dir, 0o755)
			}
			put(t, filepath.Join(root, "conditions.js"), read(t, data("conditions.js")), 0o644)
			for i := range app {
				app[i] = strings.ReplaceAll(app[i], data("conditions.js"), filepath.Join(root, "conditions.js"))
			}
			w := start(t, options{flags: flags, app: app, dir: root, env: []string{"PORT=" + freePort(t), "HANDOFF_STATE_DIR=" + filepath.Join(root, "state")}})
			var c conditions
			if err := json.Unmarshal([]byte(w.answer("/")), &c); err != nil {
				t.Fatal(err)
			}
			all := func(id string) string { return strings.TrimSuffix(strings.Repeat(id+"\t", 4), "\t") }
			if c.UID != all(nobody.Uid) || c.GID != all(nobody.Gid) || c.Groups != nobody.Gid {
				t.Errorf("runs as %q, group %q, groups %q", c.UID, c.GID, c.Groups)
			}
			if c.Caps != "0000000000000000" {
				t.Errorf("capabilities %s", c.Caps)
			}
			if c.Umask != "0027" || c.Nice != 5 || c.Limits != "2345:2345" || // node raises its own to the hard limit
				c.CPUs != "0" || c.Stdin != "/dev/null" {
				t.Errorf("%+v", c)
			}
			if c.Home != nobody.HomeDir || c.User != "nobody" || c.Logname != "nobody" {
				t.Errorf("environment of another user: %+v", c)
			}
			run := w.load(load.Config{Clients: 8})
			run.Await(50, testTimeout)
			w.reload()
			w.nothingLost(run)
			w.stop()
		})
	}
}

// Each slot has a CPU of its own, where there are enough.
func TestAffinityBySlot(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4", "--cpu-affinity", "auto"}, app: []string{data("conditions.js")}, env: []string{"PORT=" + freePort(t)}})
	of := map[string]string{}
	for range 200 {
		var c conditions
		if err := json.Unmarshal([]byte(w.answer("/")), &c); err != nil {
			t.Fatal(err)
		}
		if old := of[c.Slot]; old != "" && old != c.CPUs || strings.ContainsAny(c.CPUs, ",-") {
			t.Fatalf("slot %s runs on %s and %s", c.Slot, old, c.CPUs)
		}
		if of[c.Slot] = c.CPUs; len(of) == 4 {
			break
		}
	}
	if len(of) != 4 || of["0"] == of["1"] && of["1"] == of["2"] {
		t.Errorf("%v", of)
	}
	w.stop()
}

func TestCgroup(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs a cgroup that may be written to")
	}
	root := ""
	for line := range strings.Lines(read(t, "/proc/self/mounts")) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			root = f[1]
		}
	}
	name := fmt.Sprintf("/handoff-test-%d", os.Getpid())
	if root == "" || os.Mkdir(filepath.Join(root, name), 0o755) != nil {
		t.Skip("no cgroup hierarchy of version 2 that may be written to")
	}
	defer os.Remove(filepath.Join(root, name))
	w := start(t, options{flags: []string{"-n", "2", "--cgroup", name}, app: []string{data("conditions.js")}, env: []string{"PORT=" + freePort(t)}})
	var c conditions
	if err := json.Unmarshal([]byte(w.answer("/")), &c); err != nil || c.Cgroup != name {
		t.Errorf("in cgroup %q, want %q, %v", c.Cgroup, name, err)
	}
	w.stop()
}

// With --pdeathsig workers end with their master: who wants that gets it, and an
// upgrade, which would end them, is refused.
func TestParentDeathSignal(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--pdeathsig", "KILL"}})
	pids := w.workers()
	syscall.Kill(w.master(), syscall.SIGKILL)
	w.await("master.adopted")
	w.settled(2)
	for _, pid := range w.workers() {
		for _, old := range pids {
			if pid == old {
				t.Errorf("worker %d has outlived its master", pid)
			}
		}
	}
	w.stop()
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// awaitText waits until a file's text is ok.
func awaitText(t *testing.T, path string, ok func(string) bool) string {
	t.Helper()
	text := ""
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testTimeout); time.Now().Before(end); <-tick.C {
		b, _ := os.ReadFile(path)
		if text = string(b); ok(text) {
			return text
		}
	}
	t.Fatalf("%s has %q", path, text)
	return ""
}

func TestHooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "hook.sh"), "#!/bin/sh\necho \"$HANDOFF_EVENT $HANDOFF_NAME slot=$HANDOFF_SLOT gen=$HANDOFF_GENERATION $(cat)\" >> hooks.log\n", 0o755)
	var flags []string
	for _, event := range []string{"cluster.started", "cluster.reloading", "cluster.reloaded", "cluster.failed", "cluster.shutdown", "cluster.stopped", "worker.started", "worker.ready", "worker.shutdown", "worker.crashed"} {
		flags = append(flags, "--hook", event+"=./hook.sh")
	}
	flags = append(flags, "--hook", "cluster.reloaded=echo wrong; exit 3", "--hook", "worker.crashed=sleep 100 & sleep 100", "--hook-timeout", "1s", "--name", "hooked", "-n", "2")
	w := start(t, options{dir: dir, flags: flags})
	w.reload()
	e := w.awaitWhere("hook.failed", func(e event) bool { return true })
	if !strings.Contains(e.Msg, "exit status 3: wrong") {
		t.Errorf("%q", e.Msg)
	}
	w.settled(2)
	syscall.Kill(w.workers()[0], syscall.SIGKILL)
	w.await("worker.crashed")
	if e := w.await("hook.failed"); !strings.Contains(e.Msg, "not done within 1s, killed") {
		t.Errorf("%q", e.Msg)
	}
	// The replacement serves, before everything is stopped.
	awaitText(t, filepath.Join(dir, "hooks.log"), func(text string) bool { return strings.Count(text, "worker.ready hooked") >= 5 })
	w.stop()
	log := read(t, filepath.Join(dir, "hooks.log"))
	for name, n := range map[string]int{"cluster.started": 1, "cluster.reloading": 1, "cluster.reloaded": 1, "cluster.shutdown": 1, "cluster.stopped": 1, "worker.started": 5, "worker.ready": 5, "worker.crashed": 1, "worker.shutdown": 4} {
		if got := strings.Count(log, "\n"+name+" hooked") + strings.Count(log[:len(name)+7], name+" hooked"); got != n {
			t.Errorf("%s: %d hooks, want %d", name, got, n)
		}
	}
	// The event itself is on stdin, and in the order of things.
	first, _, _ := strings.Cut(log, "\n")
	if !strings.HasPrefix(first, "worker.started hooked slot=0 gen=1 {") {
		t.Errorf("%q", first)
	}
	if strings.Index(log, "cluster.reloading") > strings.Index(log, "cluster.reloaded") || strings.Index(log, "cluster.shutdown") > strings.Index(log, "cluster.stopped") {
		t.Error("out of order")
	}
}

func TestHooksMayRefuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, command := controlled(t, options{dir: dir, flags: []string{"-n", "2", "--name", "veto", "--max-failures", "1",
		"--hook", "before_reload=test ! -e frozen || { echo it is friday; exit 1; }",
		"--hook", "before_ready=test ! -e unfit -o $HANDOFF_SLOT = 0"}})
	run := w.load(load.Config{Clients: 8})
	run.Await(50, testTimeout)
	put(t, filepath.Join(dir, "frozen"), "", 0o644)
	_, errs := command(1, "reload", "veto")
	contains(t, errs, "before_reload refuses: exit status 1: it is friday", "generation 1 keeps serving")
	w.signal(syscall.SIGUSR2)
	w.await("reload.refused")
	w.await("reload.refused")
	os.Remove(filepath.Join(dir, "frozen"))
	put(t, filepath.Join(dir, "unfit"), "", 0o644)
	_, errs = command(1, "reload", "veto")
	contains(t, errs, "slot 1: before_ready refuses")
	if n := len(w.all("worker.ready")); n != 2 {
		t.Errorf("%d workers were put into service", n)
	}
	os.Remove(filepath.Join(dir, "unfit"))
	out, _ := command(0, "reload", "veto")
	contains(t, out, "serves, after")
	w.nothingLost(run)
	w.stop()
}

// A master that dies while a hook is asked has it asked again.
func TestMasterIsKilledWhileAHookIsAsked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, options{dir: dir, flags: []string{"-n", "2", "--hook", "before_reload=echo asked >> asked; test -e go || sleep 30"}})
	w.signal(syscall.SIGUSR2)
	awaitText(t, filepath.Join(dir, "asked"), func(s string) bool { return s == "asked\n" })
	put(t, filepath.Join(dir, "go"), "", 0o644)
	w.killMaster()
	w.await("cluster.reloaded")
	if got := read(t, filepath.Join(dir, "asked")); got != "asked\nasked\n" {
		t.Errorf("%q", got)
	}
	w.stop()
}

func TestRecycling(t *testing.T) {
	t.Parallel()
	hog := filepath.Join(t.TempDir(), "hog.js")
	put(t, hog, `const kept = []
require('http').createServer((q, r) => { if (q.url === '/eat') kept.push(Buffer.alloc(100 << 20, 1)); r.end(String(process.pid)) }).listen(process.env.PORT)`, 0o644)
	for _, test := range []struct {
		name, reason string
		flags        []string
		cause        func(w *world)
	}{
		{"age", "older than", []string{"--max-age", "2s"}, func(*world) {}},
		{"memory", "MB resident", []string{"--max-memory", "140M"}, func(w *world) { w.answer("/eat") }},
		{"requests", "requests served", []string{"--max-requests", "300"}, func(*world) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{app: []string{hog}, env: []string{"PORT=" + freePort(t)}, flags: append(test.flags, "-n", "2", "--keepalive-linger", "100ms")})
			run := w.load(load.Config{Clients: 4})
			run.Await(20, testTimeout)
			test.cause(w)
			for range 2 {
				e := w.await("worker.recycled")
				if !strings.Contains(e.Reason, test.reason) {
					t.Errorf("%q", e.Reason)
				}
				// Replacement first: it serves before the old one drains.
				next := w.awaitWhere("worker.ready", func(r event) bool { return r.Slot == e.Slot })
				old := w.awaitWhere("worker.draining", func(d event) bool { return d.PID == e.PID })
				if next.Generation != e.Generation || old.Time.Before(next.Time) {
					t.Errorf("%+v, %+v", next, old)
				}
				if test.name == "memory" {
					break // only one has eaten
				}
			}
			w.nothingLost(run)
			if n := len(w.all("worker.crashed")) + len(w.all("worker.killed")); n > 0 {
				t.Errorf("%d crashes and kills", n)
			}
			w.stop()
		})
	}
	t.Run("reload-every", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{flags: []string{"--reload-every", "1500ms", "-n", "2", "--hook", "before_reload=true"}})
		run := w.load(load.Config{Clients: 4})
		for gen := 2; gen < 4; gen++ {
			if e := w.await("cluster.reloaded"); e.Generation != gen {
				t.Errorf("generation %d, want %d", e.Generation, gen)
			}
		}
		w.nothingLost(run)
		w.stop()
	})
}

// The Go SDK counts requests, too.
func TestMaxRequestsOfTheSDK(t *testing.T) {
	t.Parallel()
	w := start(t, options{app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t)}, flags: []string{"-n", "2", "--max-requests", "200", "--keepalive-linger", "100ms"}})
	run := w.load(load.Config{Clients: 4, Mode: load.KeepAlive})
	for range 3 {
		if e := w.await("worker.recycled"); !strings.Contains(e.Reason, "requests served") {
			t.Errorf("%q", e.Reason)
		}
	}
	w.nothingLost(run)
	w.stop()
}

// A worker that stalls is said, and with --stall-kill replaced; nobody waits for it
// longer than it takes to kill it.
func TestStallKill(t *testing.T) {
	t.Parallel()
	stall := filepath.Join(t.TempDir(), "stall.js")
	put(t, stall, `require('http').createServer((q, r) => {
  if (q.url === '/stall') r.end('x', () => setImmediate(() => { for (;;); })); else r.end('ok')
}).listen(process.env.PORT)`, 0o644)
	w := start(t, options{app: []string{stall}, env: []string{"PORT=" + freePort(t)}, flags: []string{"-n", "3", "--stall-kill", "2s"}})
	w.answer("/stall")
	run := w.load(load.Config{Clients: 8, Timeout: 20 * time.Second})
	e := w.await("worker.stalled")
	if hung := w.await("worker.hung"); hung.PID != e.PID || !strings.Contains(hung.Msg, "stalled for 2s") {
		t.Errorf("%+v", hung)
	}
	if next := w.await("worker.ready"); next.Slot != e.Slot {
		t.Errorf("%+v", next)
	}
	w.awaitWhere("worker.shutdown", func(g event) bool { return g.PID == e.PID })
	w.nothingLost(run)
	w.stop()
}

// Lines of many workers, through upgrades and deaths of the master: each is there
// once, whole, with its worker's name.
func TestCapture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "chatter.js")
	put(t, app, `require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)
let n = 0
setInterval(() => { for (let i = 0; i < 20; i++) (n % 2 ? process.stdout : process.stderr).write('line ' + process.pid + ' ' + n++ + ' ' + 'x'.repeat(n % 300) + '\n') }, 5)`, 0o644)
	own := filepath.Join(t.TempDir(), "handoff")
	copyFile(t, binary, own)
	w, command := controlled(t, options{app: []string{app}, binary: own, env: []string{"PORT=" + freePort(t)}, flags: []string{"-n", "2", "--name", "chat", "--capture", "files", "--capture-dir", filepath.Join(dir, "logs")}})
	run := w.load(load.Config{Clients: 2})
	run.Await(20, testTimeout)
	for range 3 {
		command(0, "upgrade", "chat")
		run.Await(50, testTimeout)
	}
	path := filepath.Join(dir, "logs", "chat.0.log")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.signal(syscall.SIGUSR1)
	w.await("log.reopened")
	awaitText(t, path, func(s string) bool { return strings.Count(s, "\n") > 100 })
	out, _ := command(0, "logs", "chat", "--last", "5", "--slot", "1")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "chat.1 | line ") {
		t.Errorf("%q", out)
	}
	w.nothingLost(run)
	w.stop()
	for slot, files := range [][]string{{path + ".1", path}, {filepath.Join(dir, "logs", "chat.1.log")}} {
		last := map[string]int{}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(f)
			for lines.Scan() {
				var pid string
				var n int
				var x string
				if k, _ := fmt.Sscanf(lines.Text(), "line %s %d %s", &pid, &n, &x); k < 2 || len(x) != (n+1)%300 {
					t.Fatalf("slot %d: %q", slot, lines.Text())
				}
				// stdout and stderr are two streams: within each the order holds.
				stream := pid + "/" + strconv.Itoa(n%2)
				if before, ok := last[stream]; ok && n != before+2 {
					t.Errorf("slot %d: %d after %d of %s", slot, n, before, stream)
				}
				last[stream] = n
			}
			f.Close()
		}
		for stream, n := range last {
			if n < 500 {
				t.Errorf("slot %d: %d lines of %s", slot, n, stream)
			}
		}
	}
}

func TestLogPrefix(t *testing.T) {
	t.Parallel()
	app := filepath.Join(t.TempDir(), "hello.js")
	put(t, app, `console.log('hello'); console.error('oh'); require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)`, 0o644)
	w := start(t, options{app: []string{app}, env: []string{"PORT=" + freePort(t)}, flags: []string{"-n", "1", "--name", "web", "--log-prefix"}})
	w.reload()
	w.stop()
	if got := w.out.String(); got != "web.0 | hello\nweb.0 | hello\n" {
		t.Errorf("%q", got)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.other, ""); got != "web.0 | oh\nweb.0 | oh\n" {
		t.Errorf("%q", got)
	}
}

// RackMan's two layouts, by the folder alone.
func TestRackManFolders(t *testing.T) {
	t.Parallel()
	app := func(word string) string {
		return `require('http').createServer((q, r) => r.end([` + "`" + word + "`" + `, process.env.version, process.env.port, process.env.COLOUR].join())).listen(process.env.port)`
	}
	hooks := `module.exports = { cluster: { started () { require('fs').appendFileSync('hooks.log', 'started\n') }, reloading () { throw new Error('bad hook') } },
  worker: { started (port) { require('fs').appendFileSync('hooks.log', 'worker ' + port + '\n') } } }`
	t.Run("development", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		ports := []string{freePort(t), freePort(t)}
		os.Mkdir(filepath.Join(dir, "lib"), 0o755)
		put(t, filepath.Join(dir, "lib", "app.js"), app("dev"), 0o644)
		put(t, filepath.Join(dir, ".rackman.json"), `{"server": "lib/app.js", "ports": [`+strings.Join(ports, ",")+`], "watch": ["lib/**/*.js"], "timeout": 5000, "environment": {"COLOUR": "red"}}`, 0o644)
		put(t, filepath.Join(dir, ".rackhooks.js"), hooks, 0o644)
		w := start(t, options{bare: true, flags: []string{"run", "--log", "json", dir}})
		for i, port := range ports {
			w.addr = "127.0.0.1:" + port
			if got, want := w.answer("/"), "dev,false,"+port+",red"; got != want {
				t.Errorf("slot %d: %q, want %q", i, got, want)
			}
		}
		put(t, filepath.Join(dir, "lib", "app.js"), app("changed"), 0o644)
		w.await("cluster.changed")
		w.await("cluster.reloaded")
		if got := w.answer("/"); !strings.HasPrefix(got, "changed,") {
			t.Errorf("%q", got)
		}
		// More ports, in the file: one more worker.
		more := freePort(t)
		put(t, filepath.Join(dir, ".rackman.json"), `{"server": "lib/app.js", "ports": [`+strings.Join(ports, ",")+`,`+more+`]}`, 0o644)
		w.await("cluster.reloaded")
		w.settled(3 + 1) // and the process that runs .rackhooks.js
		w.addr = "127.0.0.1:" + more
		if got := w.answer("/"); got != "changed,false,"+more+"," {
			t.Errorf("%q", got)
		}
		w.signal(syscall.SIGTERM)
		w.await("cluster.stopped")
		w.exits(0)
		log := read(t, filepath.Join(dir, "hooks.log"))
		said := 0
		for _, e := range w.all("hook.output") {
			if e.Msg == "Hook: Error in clusterReloading hook: bad hook" {
				said++
			}
		}
		if said != 2 {
			t.Errorf("a hook that throws is %d lines, want one for each of 2 reloads", said)
		}
		contains(t, log, "started\n", "worker "+ports[0], "worker "+ports[1], "worker "+more)
	})
	t.Run("deployment", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		port := freePort(t)
		for _, version := range []string{"v1", "v2"} {
			os.Mkdir(filepath.Join(dir, version), 0o755)
			put(t, filepath.Join(dir, version, "app.js"), app(version), 0o644)
			put(t, filepath.Join(dir, version, ".rackman.json"), `{"server": "app.js", "ports": [1], "environment": {"COLOUR": "red"}}`, 0o644)
		}
		rack := `{"resourceLink": false, "head": "HEAD", "versions": ["v1", "v2"], "config": {"ports": [` + port + `], "environment": {"COLOUR": "blue"}}}`
		put(t, filepath.Join(dir, ".rack.json"), strings.Replace(rack, "HEAD", "v1", 1), 0o644)
		w := start(t, options{bare: true, flags: []string{"run", "--log", "json", dir}})
		w.addr = "127.0.0.1:" + port
		if got := w.answer("/"); got != "v1,v1,"+port+",blue" {
			t.Errorf("%q", got)
		}
		run := w.load(load.Config{Clients: 4})
		run.Await(20, testTimeout)
		put(t, filepath.Join(dir, ".rack.json"), strings.Replace(rack, "HEAD", "v2", 1), 0o644)
		w.await("cluster.reloaded")
		if got := w.answer("/"); got != "v2,v2,"+port+",blue" {
			t.Errorf("%q", got)
		}
		// A version that is not there, or leaves the folder, changes nothing.
		for _, head := range []string{"v3", "../v1", ".git"} {
			put(t, filepath.Join(dir, ".rack.json"), strings.Replace(rack, "HEAD", head, 1), 0o644)
			w.await("config.failed")
		}
		w.nothingLost(run)
		w.signal(syscall.SIGTERM)
		w.await("cluster.stopped")
	})
}

// asNobody runs a command as the user nobody.
func asNobody(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
