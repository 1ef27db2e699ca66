package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// killMaster ends the master with -9, and waits until the next one has adopted
// the workers.
func (w *world) killMaster() event {
	w.t.Helper()
	old := w.master()
	for old == 0 {
		<-time.After(time.Millisecond)
		old = w.master()
	}
	syscall.Kill(old, syscall.SIGKILL)
	return w.await("master.adopted")
}

// programs of both kinds: Node under its own contract, and a Go program that
// knows nothing, or knows everything, of handoff under the bind contract.
func survivors(t *testing.T) map[string]options {
	port := freePort(t)
	return map[string]options{
		"node": {flags: []string{"-n", "4"}},
		"go":   {flags: []string{"-n", "4", "--keepalive-linger", "500ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}},
	}
}

// kill -9 of the master loses nothing: workers and clients notice nothing, and
// the next master reloads.
func TestMasterIsKilled(t *testing.T) {
	t.Parallel()
	for name, o := range survivors(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, o)
			before := w.workers()
			fresh := w.load(load.Config{Clients: 16})
			kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 16, Pause: 1_000_000})
			fresh.Await(50, testTimeout)
			began := time.Now()
			w.killMaster()
			first := time.Since(began)
			settled := w.ledger()
			for range times(50, 6) { // with the keeper's growing waits between
				w.killMaster()
				fresh.Await(20, testTimeout)
				kept.Await(20, testTimeout)
			}
			if now := w.workers(); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Errorf("workers %v, before %v", now, before)
			}
			if now := w.ledger(); len(now) != len(settled) {
				t.Errorf("descriptors %d, before %d\n%v\n%v", len(now), len(settled), now, settled)
			}
			t.Logf("the next master had adopted everything within %v", first)
			w.reload()
			w.retired(4)
			w.killMaster()
			w.nothingLost(fresh)
			w.nothingLost(kept)
			w.stop()
		})
	}
}

// The master dies in the middle of a reload: the next one goes on with it.
func TestMasterIsKilledInAReload(t *testing.T) {
	t.Parallel()
	for name, o := range survivors(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, o)
			fresh := w.load(load.Config{Clients: 16})
			kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 16, Pause: 1_000_000})
			fresh.Await(50, testTimeout)
			generation := 1
			for _, at := range []string{"cluster.reloading", "worker.started", "worker.ready", "cluster.reloaded", "worker.draining"} {
				w.signal(syscall.SIGUSR2)
				w.awaitWhere(at, func(e event) bool {
					return e.Generation > generation || at == "worker.draining" && e.Generation == generation
				})
				w.killMaster()
				generation = w.reloaded(generation + 1)
				// Only the new generation is left.
				w.settled(4)
			}
			w.nothingLost(fresh)
			w.nothingLost(kept)
			w.stop()
		})
	}
}

// The master dies about when it steers: no client sees the generation before
// again. (The load counts that as order.)
func TestMasterIsKilledAsItSteers(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}})
	run := w.load(load.Config{Clients: 8})
	generation := 1
	for range times(200, 12) {
		run.Await(20, testTimeout)
		w.signal(syscall.SIGUSR2)
		w.awaitWhere("worker.ready", func(e event) bool { return e.Generation > generation })
		w.killMaster()
		generation = w.reloaded(generation + 1)
		w.settled(1)
	}
	w.nothingLost(run)
	w.stop()
}

// reloaded waits until a generation serves, or a later one: a reload that a
// master has begun, and had not told the keeper of, is begun again by the next.
func (w *world) reloaded(generation int) int {
	w.t.Helper()
	for deadline := time.After(testTimeout); ; {
		for _, e := range w.all("cluster.reloaded") {
			if e.Generation >= generation {
				return e.Generation
			}
		}
		select {
		case <-w.more:
		case <-deadline:
			w.t.Fatalf("generation %d does not serve", generation)
		}
	}
}

// settled waits until n workers are left, and nothing else.
func (w *world) settled(n int) {
	w.t.Helper()
	deadline := time.After(testTimeout)
	for len(w.workers()) != n {
		select {
		case <-deadline:
			w.t.Fatalf("workers %v, want %d", w.workers(), n)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A worker that dies while there is no master is replaced by the next one, once.
func TestWorkerAndMasterAreKilled(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "4", "--respawn", "100ms"}})
	run := w.load(load.Config{Clients: 16})
	run.Await(50, testTimeout)
	victim := w.all("worker.ready")[1]
	master := w.master()
	syscall.Kill(master, syscall.SIGSTOP)
	syscall.Kill(victim.PID, syscall.SIGKILL)
	syscall.Kill(master, syscall.SIGKILL)
	w.await("master.adopted")
	if e := w.await("worker.crashed"); e.Worker != victim.Worker {
		t.Errorf("%+v", e)
	}
	w.awaitWhere("worker.ready", func(e event) bool { return e.Slot == victim.Slot })
	w.settled(4)
	run.Await(50, testTimeout)
	r := run.Stop()
	t.Log(r)
	if r.Lost() > 16 || r.Failed[load.Refused]+r.Failed[load.Timeout] > 0 {
		t.Errorf("%d lost, at most the 16 that were inside the worker may be", r.Lost())
	}
	if n := len(w.all("worker.started")); n != 5 {
		t.Errorf("%d starts, want 5", n)
	}
	w.stop()
}

// chaos is the whole: at a random moment kill -9 the master, or a worker, or
// upgrade, or reload, or reload and kill the master in the middle, or scale.
func TestChaos(t *testing.T) {
	t.Parallel()
	kinds := survivors(t)
	if *long {
		port := freePort(t)
		kinds["activation"] = options{flags: []string{"-n", "4", "--contract", "activation", "--listen", "127.0.0.1:" + port, "--keepalive-linger", "500ms"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}}
		kinds["unix"] = options{flags: []string{"-n", "4", "--keepalive-linger", "500ms"}, app: []string{goProgram("gosdk")},
			env: []string{"NETWORK=unix", "PORT=" + filepath.Join(t.TempDir(), "s")}}
		kinds["udp"] = options{flags: []string{"-n", "4"}, app: []string{goProgram("goecho")}, env: []string{"NETWORK=udp", "PORT=" + freePort(t)}}
	}
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.flags = append(o.flags, "--respawn", "50ms", "--backoff", "200ms")
			run := t.TempDir()
			o.env = append(o.env, "HANDOFF_RUNTIME_DIR="+run)
			w := start(t, o)
			var killed int
			switch name {
			case "udp":
				stop := ask(t, "127.0.0.1:"+o.env[1][len("PORT="):], echoQuery)
				killed = w.chaos(run, times(100, 5), func() {})
				asked, failed := stop()
				t.Logf("%d workers killed, %d asked, %v", killed, asked, failed)
				if len(failed) > killed { // it reads and answers one at a time
					t.Errorf("%d of %d not answered with %d workers killed: more than can have been inside them", len(failed), asked, killed)
				}
			default:
				cfg := load.Config{Addr: w.addr}
				if name == "unix" {
					cfg.Network, cfg.Addr = "unix", o.env[1][len("PORT="):]
				}
				cfg.Clients = 8
				fresh := startLoad(cfg)
				cfg.Mode, cfg.Pause = load.KeepAlive, 2_000_000
				kept := startLoad(cfg)
				rounds := times(250, 15) // for each of two programs
				if name == "unix" || name == "activation" {
					rounds = 100
				}
				killed = w.chaos(run, rounds, func() { fresh.Await(20, testTimeout) })
				a, b := fresh.Stop(), kept.Stop()
				// At a path all have one socket, and generations answer in turns. What waits in
				// a killed worker's queue is answered by who takes its socket: perhaps a worker
				// whose generation is not in service yet, and clients see that order.
				if name == "unix" || name == "activation" {
					delete(a.Failed, load.Order)
				}
				t.Logf("%d workers killed\nnew connections: %v\nkeep-alive: %v", killed, a, b)
				// Inside a killed worker there can be one request of each client, and
				// what a batch of accepts has taken.
				if most := int64(killed * 16); a.Lost()+b.Lost() > most || a.Failed[load.Refused]+b.Failed[load.Refused]+a.Failed[load.Timeout]+b.Failed[load.Timeout] > 0 {
					t.Errorf("%d lost with %d workers killed: more than can have been inside them, or of another class", a.Lost()+b.Lost(), killed)
				}
			}
			for _, pid := range append(w.workers(), w.master()) {
				if s := processState(pid); s == "Z" {
					t.Errorf("%d is a zombie", pid)
				}
			}
			w.stop()
		})
	}
}

// chaos does it, as often as said, and returns how many workers it has killed. run is the
// runtime folder; before each round served waits until clients were.
func (w *world) chaos(run string, rounds int, served func()) (killed int) {
	t := w.t
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	slots := 4
	for range rounds {
		served()
		switch n := r.IntN(7); n {
		case 0:
			w.killMaster()
		case 1:
			serving := w.serving()
			syscall.Kill(serving[r.IntN(len(serving))], syscall.SIGKILL)
			killed++
		case 2:
			w.reloadThrough()
		case 3:
			w.signal(syscall.SIGUSR2)
			<-time.After(time.Duration(r.IntN(300)) * time.Millisecond)
			w.killMaster()
		case 4:
			if slots < 5 {
				slots++
				w.signal(syscall.SIGTTIN)
			}
		case 5:
			if out, errs, code := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "upgrade"); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, out, errs)
			}
		case 6:
			if slots > 3 {
				slots--
				w.signal(syscall.SIGTTOU)
			}
		}
		w.settled(slots)
		w.consistent([]string{"HANDOFF_RUNTIME_DIR=" + run})
	}
	return killed
}

// reloadThrough reloads, and waits for it, whatever the master's log says
// before.
func (w *world) reloadThrough() {
	w.t.Helper()
	w.signal(syscall.SIGUSR2)
	w.await("cluster.reloaded")
}

// serving returns the pids of live workers.
func (w *world) serving() []int {
	w.t.Helper()
	for {
		if pids := w.workers(); len(pids) > 0 {
			return pids
		}
		<-time.After(time.Millisecond)
	}
}

func processState(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == ')' && i+2 < len(b) {
			return string(b[i+2])
		}
	}
	return ""
}

// The directory that handoff was started in goes, and the script: a master that
// comes after needs neither, and a reload says so.
func TestMasterIsKilledWhereNothingIsLeft(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "app.js"), "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)", 0o644)
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{"app.js"}, dir: dir})
	run := w.load(load.Config{Clients: 4})
	run.Await(100, testTimeout)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.killMaster()
	// A worker that dies cannot be started again; the master lives with it.
	master := w.master()
	syscall.Kill(w.workers()[0], syscall.SIGKILL)
	w.awaitWhere("worker.crashed", func(e event) bool { return strings.HasPrefix(e.Msg, "Cannot start a worker") })
	if now := w.master(); now != master {
		t.Errorf("the master has died of it: %d is the next one", now)
	}
	w.signal(syscall.SIGUSR2)
	if e := w.await("cluster.failed"); !strings.Contains(e.Reason+e.Msg, "release") {
		t.Errorf("%+v", e)
	}
	run.Await(100, testTimeout)
	if r := run.Stop(); r.Lost() > 16 { // inside the worker that was killed
		t.Errorf("%v", r)
	}
	w.stop()
}

// A keeper that is stopped (Ctrl-Z) keeps nobody waiting, and when it goes on it
// holds what has come meanwhile.
func TestKeeperIsStopped(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--respawn", "10ms"}})
	syscall.Kill(w.pid(), syscall.SIGSTOP)
	for _, pid := range w.workers() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	// With a long queue (systemd sets 512) there is room for all of it.
	b, _ := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	most, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if most <= 10 {
		w.await("keeper.mute")
	}
	run := w.load(load.Config{Clients: 4})
	w.await("worker.ready")
	w.await("worker.ready")
	workers := w.workers()
	run.Await(100, testTimeout)
	syscall.Kill(w.pid(), syscall.SIGCONT)
	if most <= 10 {
		w.await("keeper.answers")
	}
	w.killMaster()
	if now := w.workers(); fmt.Sprint(now) != fmt.Sprint(workers) {
		t.Errorf("workers %v, before %v", now, workers)
	}
	run.Await(100, testTimeout)
	w.nothingLost(run)
	w.stop()
}

// A master that hangs does not heed a stop: it is killed, and the next one stops in good order.
func TestStopOfAMasterThatHangs(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, env: []string{"HANDOFF_KEEPER_WAITS=stop=500ms"}})
	syscall.Kill(w.master(), syscall.SIGSTOP)
	w.signal(syscall.SIGTERM)
	w.await("master.adopted")
	w.await("cluster.shutdown")
	w.exits(0)
	if n := len(w.all("worker.shutdown")); n != 2 {
		t.Errorf("%d workers have ended in good order, want 2", n)
	}
}

// A worker of handoff's own user says what a candidate says to the keeper: it gets nothing.
func TestWorkerIsNoCandidate(t *testing.T) {
	t.Parallel()
	w := start(t, python(t, `
import array
env = open("/proc/%d/environ" % os.getppid(), "rb").read().split(b"\0")
to = [kv for kv in env if kv.startswith(b"NOTIFY_SOCKET=")][0][14:].replace(b"@", b"\0", 1)
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.sendto(b"X_CANDIDATE=1", to)
ours, theirs = socket.socketpair()
n.sendmsg([b"X_GIVE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))], 0, to)
theirs.close()
got = ours.recv(100)
n.sendto(b"READY=1", to)
open("attacks", "w").write("got %r" % got)
s = http.server.ThreadingHTTPServer(("127.0.0.1", port), H); s.serve_forever()`,
		options{flags: []string{"-n", "1"}, env: []string{"PORT=" + freePort(t)}}))
	awaitFile(t, w.dir+"/attacks", "got b''")
	w.reload()
	w.stop()
}

// A bind or listen that a master has been told of and has not answered is
// answered by the next one; so is what it has left behind of a worker spared.
func TestMasterIsKilledWhileAProgramBinds(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{"python3", data("any/binder.py")}, env: []string{"PORT=" + freePort(t)}})
	helper := w.answer("/helper")
	for range times(100, 6) {
		before := w.answer("/binds")
		w.killMaster()
		// Some of its threads bind again and again; each has gone on.
		for deadline := time.Now().Add(testTimeout); ; {
			if after := w.answer("/binds"); allMore(before, after) {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("binds of its threads: %s, before %s: one hangs", after, before)
			}
		}
	}
	pid, _ := strconv.Atoi(helper)
	if s := processState(pid); s == "" || s == "Z" {
		t.Errorf("what the worker has left in the background (%d) is gone", pid)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	w.stop()
}

// allMore compares lists of numbers.
func allMore(before, after string) bool {
	a, b := strings.Fields(before), strings.Fields(after)
	for i := range a {
		x, _ := strconv.Atoi(a[i])
		y, _ := strconv.Atoi(b[i])
		if y <= x {
			return false
		}
	}
	return len(a) > 0 && len(a) == len(b)
}

// answer is the body of an answer.
func (w *world) answer(path string) string {
	w.t.Helper()
	c := http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + w.addr + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Keeper and master are killed at once: a program that is no cluster worker of
// Node's serves on, and the next start takes its sockets over; also one that has
// overwritten its environment, as setproctitle(3) does, and one of another user.
func TestBothAreKilled(t *testing.T) {
	t.Parallel()
	const overwrites = `
with open("/proc/self/stat") as f: a, b = map(int, f.read().rsplit(")")[1].split()[47:49])
with open("/proc/self/mem", "r+b", 0) as f: f.seek(a); f.write(bytes(b - a))
http.server.ThreadingHTTPServer(("127.0.0.1", port), H).serve_forever()`
	goserver := options{app: []string{goProgram("goserver")}, env: []string{"PORT=" + freePort(t)}, dir: t.TempDir()}
	title := python(t, overwrites, options{env: []string{"PORT=" + freePort(t)}, dir: t.TempDir()})
	cases := map[string]options{"goserver": goserver, "overwritten environment": title}
	if os.Geteuid() == 0 {
		o := goserver
		bin := t.TempDir() // that nobody can reach
		os.Chmod(bin, 0o755)
		os.Chmod(filepath.Dir(bin), 0o755)
		copyFile(t, goserver.app[0], filepath.Join(bin, "goserver"))
		o.app, o.flags, o.env, o.dir = []string{filepath.Join(bin, "goserver")}, []string{"--user", "nobody"}, []string{"PORT=" + freePort(t)}, t.TempDir()
		cases["another user"] = o
	}
	for name, o := range cases {
		o.flags = append(o.flags, "-n", "2")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothAreKilled(t, o)
		})
	}
}

func bothAreKilled(t *testing.T, o options) {
	w := start(t, o)
	fresh := w.load(load.Config{Clients: 8})
	for range times(10, 2) {
		fresh.Await(100, testTimeout)
		old := w.workers()
		keeper, master := w.pid(), w.master()
		syscall.Kill(keeper, syscall.SIGSTOP) // or it might start another master
		syscall.Kill(master, syscall.SIGKILL)
		syscall.Kill(keeper, syscall.SIGKILL)
		w.exits(-1)
		addr := w.addr
		fresh.Await(100, testTimeout)
		w = launch(t, o)
		w.addr = addr
		if e := w.await("master.recovered"); e.Workers != 2 {
			t.Errorf("%d workers are taken over", e.Workers)
		}
		w.await("cluster.reloaded")
		w.retired(2)
		for _, e := range w.all("worker.shutdown") {
			if !slices.Contains(old, e.PID) {
				t.Errorf("%d is gone, want %v", e.PID, old)
			}
		}
	}
	w.nothingLost(fresh)
	w.stop()
}

// Who has the port is said.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := launch(t, options{flags: []string{"-n", "1", "--listen", l.Addr().String()}})
	if e := w.await("cluster.failed"); !strings.Contains(e.Msg, fmt.Sprintf("(pid %d) listens there", os.Getpid())) {
		t.Errorf("%q", e.Msg)
	}
	w.exits(1)
}
