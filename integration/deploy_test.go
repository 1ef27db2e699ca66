package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// deployment is a folder with versions, and the commands of handoff on it.
type deployment struct {
	t    *testing.T
	dir  string
	src  string
	env  []string
	port string
}

func versionApp(version string) string {
	return "require('http').createServer((q, r) => { r.setHeader('X-Version', '" + version + "'); r.end('" + version + "') }).listen(process.env.port)"
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	root := t.TempDir()
	d := &deployment{t: t, dir: filepath.Join(root, "web"), src: filepath.Join(root, "src"), env: []string{"HANDOFF_RUNTIME_DIR=" + filepath.Join(root, "run")}, port: freePort(t)}
	os.Mkdir(d.src, 0o755)
	d.do(0, "setup", d.dir)
	return d
}

func (d *deployment) source(app string) {
	d.t.Helper()
	put(d.t, filepath.Join(d.src, "app.js"), app, 0o644)
	put(d.t, filepath.Join(d.src, ".rackman.json"), `{"server": "app.js", "ports": [`+d.port+`]}`, 0o644)
}

func (d *deployment) do(code int, args ...string) (out, errs string) {
	d.t.Helper()
	out, errs, got := handoff(d.t, d.env, args...)
	if got != code {
		d.t.Fatalf("handoff %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	return out, errs
}

func (d *deployment) run() *world {
	d.t.Helper()
	w := start(d.t, options{bare: true, flags: []string{"run", "--log", "json", "--keepalive-linger", "100ms", d.dir}, env: d.env})
	w.addr = "127.0.0.1:" + d.port
	return w
}

// A switch is seen at once, loses nothing, and when the command returns each answer is
// of the new version.
func TestSwitchUnderLoad(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, v := range []string{"v1", "v2"} {
		d.source(versionApp(v))
		d.do(0, "deploy", d.dir, v, "--from", d.src)
	}
	w := d.run()
	live := atomic.Pointer[string]{}
	var wrong atomic.Int64
	run := w.load(load.Config{Clients: 4, Observe: func(_ int, h http.Header) {
		if want := live.Load(); want != nil && h.Get("X-Version") != *want {
			wrong.Add(1)
		}
	}})
	run.Await(50, testTimeout)
	var slowest, all, idle time.Duration
	n := times(100, 10)
	for i := range n {
		version := []string{"v1", "v2"}[i%2]
		live.Store(nil) // while it switches, either is right
		began := time.Now()
		d.do(0, "head", d.dir) // what a command takes that does nothing
		idle += time.Since(began)
		seen := make(chan time.Duration, 1)
		began = time.Now()
		go func() {
			for w.answer("/") != version {
			}
			seen <- time.Since(began)
		}()
		d.do(0, "switch", d.dir, version)
		took := <-seen
		all, slowest = all+took, max(slowest, took)
		// The load's requests that were under way have been answered.
		run.Await(10, testTimeout)
		live.Store(&version)
		run.Await(10, testTimeout)
	}
	w.nothingLost(run)
	if wrong.Load() > 0 {
		t.Errorf("%d answers of the version before, after the switch", wrong.Load())
	}
	boot := time.Duration(0)
	for _, e := range w.all("worker.ready") {
		boot += time.Duration(e.After * float64(time.Second))
	}
	boot /= time.Duration(len(w.all("worker.ready")))
	t.Logf("%d switches: %v from the command to the first new answer, at most %v; a worker boots in %v", n, (all / time.Duration(n)).Round(time.Millisecond), slowest.Round(time.Millisecond), boot.Round(time.Millisecond))
	idle /= time.Duration(n)
	if over := all/time.Duration(n) - boot; over > 250*time.Millisecond+5*idle {
		t.Errorf("%v more than the boot, where a command that does nothing takes %v", over, idle)
	}
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// A version that cannot serve does not stay live; --check and --run keep it from being
// a version at all.
func TestBrokenVersionDoesNotStay(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.source(versionApp("good"))
	d.do(0, "deploy", d.dir, "good", "--from", d.src)
	w := d.run()
	run := w.load(load.Config{Clients: 4})
	d.source("throw new Error('no database')")
	_, errs := d.do(1, "deploy", d.dir, "bad", "--from", d.src)
	contains(t, errs, "bad does not serve, good is live again", "Error: no database")
	if out, _ := d.do(0, "head", d.dir); out != "good\n" {
		t.Errorf("%q is live", out)
	}
	_, errs = d.do(1, "switch", d.dir, "bad")
	contains(t, errs, "good is live again")
	_, errs = d.do(1, "deploy", d.dir, "worse", "--from", d.src, "--check")
	contains(t, errs, "not registered as a version: it does not start (--check)", "no database")
	_, errs = d.do(1, "deploy", d.dir, "worse", "--from", d.src, "--run", "echo building; exit 3")
	contains(t, errs, "building", `not registered as a version: --run "echo building; exit 3": exit status 3`)
	if out, _ := d.do(0, "versions", d.dir); out != "good\nbad\n" {
		t.Errorf("%q", out)
	}
	// Tried beside the live one, on ports of its own, and built: a version.
	d.source(versionApp("next"))
	d.do(0, "deploy", d.dir, "next", "--from", d.src, "--check", "--run", "echo built > built")
	if got := w.answer("/"); got != "next" {
		t.Errorf("%q", got)
	}
	if got := read(t, filepath.Join(d.dir, "next", "built")); got != "built\n" {
		t.Errorf("%q", got)
	}
	d.do(0, "rollback", d.dir)
	if got := w.answer("/"); got != "good" {
		t.Errorf("%q after the rollback", got)
	}
	w.nothingLost(run)
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// A version says what it runs by a handoff.toml, or by its package.json: what --check
// starts is what runs, and what it refuses does not.
func TestVersionsOfAnyKind(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	toml := "command = \"app.js\"\nports = [" + d.port + "]\ncwd = \"lib\"\nkeepalive_linger = \"100ms\"\n"
	os.Mkdir(filepath.Join(d.src, "lib"), 0o755)
	put(t, filepath.Join(d.src, "handoff.toml"), toml, 0o644)
	put(t, filepath.Join(d.src, "lib", "app.js"), versionApp("toml"), 0o644)
	d.do(0, "deploy", d.dir, "toml", "--from", d.src, "--run", "true", "--check")
	w := d.run()
	if got := w.answer("/"); got != "toml" {
		t.Errorf("%q", got)
	}
	put(t, filepath.Join(d.src, "handoff.toml"), strings.ReplaceAll(toml, "app.js", "none.js"), 0o644)
	_, errs := d.do(1, "deploy", d.dir, "bad", "--from", d.src, "--check")
	contains(t, errs, "not registered as a version: it does not start (--check)", "none.js")
	os.Remove(filepath.Join(d.src, "handoff.toml"))
	_, errs = d.do(1, "deploy", d.dir, "bad", "--from", d.src, "--check")
	contains(t, errs, "not registered as a version", "it has no handoff.toml, no .rackman.json, and no package.json that starts something")
	_, errs = d.do(1, "deploy", d.dir, "bad", "--from", d.src)
	contains(t, errs, "toml is live again", "it has no handoff.toml")
	put(t, filepath.Join(d.src, "package.json"), `{"scripts": {"start": "node lib/app.js"}}`, 0o644)
	put(t, filepath.Join(d.src, "lib", "app.js"), strings.ReplaceAll(versionApp("npm"), "process.env.port", d.port), 0o644)
	d.do(0, "deploy", d.dir, "npm", "--from", d.src, "--check")
	if got := w.answer("/"); got != "npm" {
		t.Errorf("%q", got)
	}
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// whole checks that each version that is listed is complete, and that what is live is
// there.
func (d *deployment) whole(files int) {
	d.t.Helper()
	var r struct {
		Head     any
		Versions []string
	}
	if err := json.Unmarshal([]byte(read(d.t, filepath.Join(d.dir, ".rack.json"))), &r); err != nil {
		d.t.Fatal(err)
	}
	if head, _ := r.Head.(string); head != "" && !slices.Contains(r.Versions, head) {
		d.t.Errorf("%s is live, and not listed", head)
	}
	for _, v := range r.Versions {
		n := 0
		filepath.WalkDir(filepath.Join(d.dir, v), func(_ string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				n++
			}
			return nil
		})
		if n != files {
			d.t.Errorf("version %s has %d files of %d", v, n, files)
		}
	}
}

// kill -9 at any instant of deploy, switch and clean: the folder is valid, and the
// service unhurt.
func TestKilledDeploys(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.source(versionApp("x"))
	for i := range 200 {
		put(t, filepath.Join(d.src, fmt.Sprintf("f%d.txt", i)), strings.Repeat("x", 1000), 0o644)
	}
	const files = 202
	d.do(0, "deploy", d.dir, "first", "--from", d.src)
	d.do(0, "deploy", d.dir, "second", "--from", d.src)
	w := d.run()
	run := w.load(load.Config{Clients: 2})
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 7))
	for i := range times(200, 30) {
		args := [][]string{
			{"deploy", d.dir, fmt.Sprintf("v%d", i), "--from", d.src, "--no-switch"},
			{"switch", d.dir, []string{"first", "second"}[i%2], "--wait=false"},
			{"clean", d.dir, "--keep", "4"},
			{"deploy", d.dir, "second", "--from", d.src, "--force", "--no-switch"},
		}[i%4]
		cmd := handoffCommand(d.env, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(r.IntN(60)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		d.whole(files)
	}
	d.do(0, "clean", d.dir)
	if left, _ := filepath.Glob(filepath.Join(d.dir, ".deploy-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	w.nothingLost(run)
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// Two deploys and switches at once: nobody's change is lost.
func TestDeploysAtOnce(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.source(versionApp("x"))
	d.do(0, "deploy", d.dir, "first", "--from", d.src)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 3 {
				handoff(t, d.env, "deploy", d.dir, fmt.Sprintf("v%d-%d", i, j), "--from", d.src)
				handoff(t, d.env, "switch", d.dir, "first")
			}
		})
	}
	all.Wait()
	out, _ := d.do(0, "versions", d.dir)
	if n := strings.Count(out, "\n"); n != 13 {
		t.Errorf("%d versions, want 13:\n%s", n, out)
	}
	var record struct{ History []any }
	json.Unmarshal([]byte(read(t, filepath.Join(d.dir, ".rack.json"))), &record)
	if len(record.History) != 25 {
		t.Errorf("%d changes, want 25", len(record.History))
	}
}

// A folder that cannot be written to, a disk that is full: an error, and nothing else.
func TestDeployWhereItCannot(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.source(versionApp("x"))
	d.do(0, "deploy", d.dir, "first", "--from", d.src)
	before := read(t, filepath.Join(d.dir, ".rack.json"))
	if os.Getuid() == 0 {
		own := filepath.Join(t.TempDir(), "handoff")
		copyFile(t, binary, own)
		os.Chmod(own, 0o755)
		for dir := filepath.Dir(d.dir); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
		for dir := filepath.Dir(own); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
		for _, args := range [][]string{{"deploy", d.dir, "other", "--from", d.src}, {"switch", d.dir, "first"}, {"clean", d.dir, "--keep", "1"}} {
			cmd := exec.Command(own, args...)
			cmd.Env = append(os.Environ(), d.env...)
			cmd.SysProcAttr = asNobody(t)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "permission denied") {
				t.Errorf("%v as nobody: %v\n%s", args, err, out)
			}
		}
		// A small disk.
		small := filepath.Join(t.TempDir(), "small")
		os.Mkdir(small, 0o755)
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k"); err != nil {
			t.Logf("no full disk: %v", err)
		} else {
			defer syscall.Unmount(small, 0)
			put(t, filepath.Join(d.src, "large"), strings.Repeat("x", 400<<10), 0o644)
			d.do(0, "setup", filepath.Join(small, "web"))
			_, errs := d.do(1, "deploy", filepath.Join(small, "web"), "v1", "--from", d.src)
			contains(t, errs, "no space left on device")
			entries, _ := os.ReadDir(filepath.Join(small, "web"))
			for _, e := range entries {
				if e.IsDir() {
					t.Errorf("%s is left", e.Name())
				}
			}
			if out, _ := d.do(0, "versions", filepath.Join(small, "web")); out != "" {
				t.Errorf("%q", out)
			}
		}
	}
	if got := read(t, filepath.Join(d.dir, ".rack.json")); got != before {
		t.Errorf("the record has changed: %s", got)
	}
}

// rackman's own words, and its ends.
func TestRackmanCommand(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.source(versionApp("one"))
	d.do(0, "deploy", d.dir, "v1", "--from", d.src)
	d.source(versionApp("two"))
	d.do(0, "deploy", d.dir, "v2", "--from", d.src, "--no-switch")
	link := filepath.Join(t.TempDir(), "rackman")
	if err := os.Symlink(binary, link); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"": "one", "v2": "two"} {
		args := []string{d.dir}
		if version != "" {
			args = append(args, version)
		}
		cmd := exec.Command(link, args...)
		cmd.Env = append(os.Environ(), d.env...)
		var out lockedBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitPort(t, d.port)
		w := &world{t: t, addr: "127.0.0.1:" + d.port}
		if got := w.answer("/"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if version != "" { // fixed: a switch changes nothing
			d.do(0, "switch", d.dir, "v2", "--wait=false")
			d.do(0, "switch", d.dir, "v1", "--wait=false")
			if got := w.answer("/"); got != want {
				t.Errorf("%q after a switch, want %q", got, want)
			}
		}
		for late := time.After(testTimeout); !strings.Contains(out.String(), "RackMan Cluster Ready"); { // after it has answered
			select {
			case <-late:
				t.Fatalf("not ready:\n%s", out.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
		contains(t, out.String(), "RackMan Cluster Ready", "You can reload the server manually using `kill -SIGHUP "+fmt.Sprint(cmd.Process.Pid)+"`",
			"Now Listening on Port "+d.port, "RackMan Cluster Terminating", "All Workers Shutdown")
	}
}

// A reload that is refused twice is refused twice: nobody waits for ever. And a swap by
// force that does not serve is undone.
func TestDeployRefusedAndUndone(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, v := range []string{"v1", "v2"} {
		d.source(versionApp(v))
		d.do(0, "deploy", d.dir, v, "--from", d.src)
	}
	frozen := filepath.Join(d.dir, "frozen")
	w := start(t, options{bare: true, flags: []string{"run", "--log", "json", "--keepalive-linger", "100ms", "--hook", "before_reload=test ! -e " + frozen, d.dir}, env: d.env})
	w.addr = "127.0.0.1:" + d.port
	put(t, frozen, "", 0o644)
	for range 3 {
		_, errs := d.do(1, "switch", d.dir, "v1", "--timeout", "30s")
		contains(t, errs, "v1 does not serve, v2 is live again", "before_reload refuses")
	}
	os.Remove(frozen)
	d.source("throw new Error('worse')")
	_, errs := d.do(1, "deploy", d.dir, "v2", "--from", d.src, "--force")
	contains(t, errs, "the new copy of v2 does not serve; restored the previous one", "worse")
	if got := read(t, filepath.Join(d.dir, "v2", "app.js")); got != versionApp("v2") {
		t.Errorf("%q", got)
	}
	_, errs = d.do(1, "deploy", d.dir, "v3", "--from", d.src, "--link-from", "v2", "--run", "true")
	contains(t, errs, "--link-from and --run")
	if got := w.answer("/"); got != "v2" {
		t.Errorf("%q", got)
	}
	w.signal(syscall.SIGTERM)
	w.exits(0)
}
