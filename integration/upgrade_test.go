package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// newer builds handoff as version v2.0.0, once for all tests.
var newer = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(filepath.Dir(binary), "handoff-v2")
	if out, err := goBuild("-o", path, "-ldflags", "-X main.version=v2.0.0", "handoff/cmd/handoff").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build: %w\n%s", err, out)
	}
	return path, nil
})

// putNewer puts handoff v2.0.0 at a path, whole.
func putNewer(t *testing.T, path string) {
	t.Helper()
	from, err := newer()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, from, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// installed is handoff in a folder of its own, where it may be replaced.
func installed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "handoff")
	b, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// put replaces what is at a path by something else, whole.
func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A changed binary and USR2: the master is replaced, then the workers are; under
// load nothing is lost. Then again and again, by request, with no worker restarted.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, o := range survivors(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.binary = installed(t)
			run := t.TempDir()
			o.env = append(o.env, "HANDOFF_RUNTIME_DIR="+run)
			w := start(t, o)
			fresh := w.load(load.Config{Clients: 16})
			kept := w.load(load.Config{Mode: load.KeepAlive, Clients: 16, Pause: 1_000_000})
			fresh.Await(50, testTimeout)
			putNewer(t, o.binary)
			first := w.master()
			w.signal(syscall.SIGUSR2)
			w.await("master.upgraded")
			w.await("cluster.reloaded")
			w.retired(4)
			if out, _, _ := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "status", "--json"); !strings.Contains(out, `"v2.0.0"`) {
				t.Errorf("%s", out)
			}
			if w.master() == first {
				t.Error("the master is the same")
			}
			workers, descriptors := w.workers(), w.ledger()
			var took []time.Duration
			for range times(100, 5) {
				began := time.Now()
				if out, errs, code := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "upgrade"); code != 0 {
					t.Fatalf("exit code %d\n%s%s", code, out, errs)
				}
				w.await("master.upgraded")
				took = append(took, time.Since(began))
				fresh.Await(10, testTimeout)
			}
			t.Logf("upgrades took %v", took[:min(5, len(took))])
			if now := w.workers(); !equal(now, workers) {
				t.Errorf("workers %v, before %v", now, workers)
			}
			if now := w.ledger(); len(now) != len(descriptors) {
				t.Errorf("descriptors %d, before %d\n%v\n%v", len(now), len(descriptors), now, descriptors)
			}
			w.reload()
			w.retired(4)
			w.nothingLost(fresh)
			w.nothingLost(kept)
			w.stop()
		})
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// A binary that does not take over: the old master goes on, says why, and the
// workers are not reloaded.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	path := installed(t)
	w := start(t, options{flags: []string{"-n", "2", "--upgrade-timeout", "1s"}, binary: path})
	run := w.load(load.Config{Clients: 8})
	run.Await(50, testTimeout)
	master, workers := w.master(), w.workers()
	for _, c := range []struct{ name, text, want string }{
		{"crashes", "#!/bin/sh\nexit 7\n", "exit status 7"},
		{"hangs", "#!/bin/sh\nexec sleep 30\n", "timed out"},
		{"is no program", "nonsense", "exec format error"},
		{"lacks an option", "#!/bin/sh\nexec " + binary + " __master run --no-such-flag\n", "exit status 2"},
	} {
		put(t, path, c.text, 0o755)
		w.signal(syscall.SIGUSR2)
		if e := w.await("upgrade.failed"); !strings.Contains(e.Reason, c.want) {
			t.Errorf("a binary that %s: %q, want %q", c.name, e.Reason, c.want)
		}
	}
	put(t, path, "not executable", 0o644)
	w.signal(syscall.SIGUSR2)
	if e := w.await("upgrade.failed"); !strings.Contains(e.Reason, "permission denied") {
		t.Errorf("not executable: %q", e.Reason)
	}
	if w.master() != master || !equal(w.workers(), workers) {
		t.Errorf("master %d, workers %v; before %d, %v", w.master(), w.workers(), master, workers)
	}
	if n := len(w.all("cluster.reloading")); n != 0 {
		t.Errorf("%d reloads after failed upgrades", n)
	}
	// With no binary there at all a reload is a reload.
	os.Remove(path)
	w.reload()
	w.retired(2)
	w.nothingLost(run)
	w.stop()
}

// The path is a symlink that is switched; and the working directory is another
// one by then.
func TestUpgradeThroughASymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		os.Mkdir(filepath.Join(dir, v), 0o755)
	}
	os.Rename(installed(t), filepath.Join(dir, "v1", "handoff"))
	putNewer(t, filepath.Join(dir, "v2", "handoff"))
	current := filepath.Join(dir, "current")
	os.Symlink("v1", current)
	work := filepath.Join(dir, "work")
	os.Mkdir(work, 0o755)
	w := start(t, options{flags: []string{"-n", "2"}, binary: filepath.Join(current, "handoff"), dir: work})
	os.Remove(work)
	os.Mkdir(work, 0o755)
	os.Symlink("v2", current+".new")
	os.Rename(current+".new", current)
	w.signal(syscall.SIGUSR2)
	w.await("master.upgraded")
	w.await("cluster.reloaded")
	w.retired(2)
	w.stop()
}

// A master that is killed after an upgrade is started again as what it was, not
// as what is on disk.
func TestBinaryOfTheNextMaster(t *testing.T) {
	t.Parallel()
	path := installed(t)
	w := start(t, options{flags: []string{"-n", "2"}, binary: path})
	put(t, path, "#!/bin/sh\nexit 1\n", 0o755)
	w.killMaster()
	w.settled(2)
	w.stop()
}

// 64 workers with 16 addresses each: more than 1 000 held sockets, and 1 000 new
// connections a second.
func TestUpgradeOfMany(t *testing.T) {
	t.Parallel()
	o := options{flags: []string{"-n", "64"}, app: []string{goProgram("gosdk")}, binary: installed(t)}
	port := freePort(t)
	o.env = []string{"PORT=" + port, "GOMAXPROCS=1"}
	for range 15 {
		o.flags = append(o.flags, "--listen", "127.0.0.1:"+freePort(t))
	}
	run := t.TempDir()
	o.env = append(o.env, "HANDOFF_RUNTIME_DIR="+run)
	w := start(t, o)
	w.addr = "127.0.0.1:" + port
	fresh := w.load(load.Config{Clients: 8, Rate: 1000})
	fresh.Await(500, testTimeout)
	workers := w.workers()
	var took []time.Duration
	var before []string
	for i := range times(100, 5) {
		if out, errs, code := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "upgrade"); code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		from := w.await("master.upgrading")
		took = append(took, w.await("master.upgraded").Time.Sub(from.Time))
		fresh.Await(100, testTimeout)
		if i == 0 { // an upgraded master has a pipe that the first one had not
			before = w.ledger()
		}
	}
	sockets := 0
	for _, kind := range w.descriptors() {
		if kind == "socket" {
			sockets++
		}
	}
	slices.Sort(took)
	t.Logf("%d sockets in keeper and master; %d upgrades: median %v, worst %v", sockets, len(took), took[len(took)/2], took[len(took)-1])
	if now := w.workers(); !slices.Equal(now, workers) || len(now) != 64 {
		t.Errorf("%d workers, before %d", len(now), len(workers))
	}
	if now := w.ledger(); len(now) != len(before) {
		t.Errorf("descriptors %d, before %d", len(now), len(before))
	}
	w.nothingLost(fresh)
	w.stop()
}

// A signal that comes at the end of an upgrade is the next master's.
func TestSignalAtTheEndOfAnUpgrade(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	w := start(t, options{flags: []string{"-n", "1"}, env: []string{"HANDOFF_RUNTIME_DIR=" + run}})
	for range times(100, 5) {
		if out, errs, code := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "upgrade"); code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		w.signal(syscall.SIGUSR2)
		w.await("cluster.reloaded")
		w.retired(1)
	}
	w.stop()
}

// The master is killed while everything stops: the next one goes on stopping.
func TestMasterIsKilledInAStop(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2", "--keepalive-linger", "100ms"}})
	answered := make(chan error, 1)
	go func() {
		resp, err := fresh.Get("http://" + w.addr + "/?ms=2000")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	run := w.load(load.Config{Clients: 2}) // the request is in before
	run.Await(50, testTimeout)
	run.Stop()
	w.signal(syscall.SIGTERM)
	w.await("worker.draining")
	w.killMaster()
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	w.exits(0)
}
