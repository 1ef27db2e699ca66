package hooks

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testTimeout is how long a test waits for what must come.
const testTimeout = 20 * time.Second

// lines is a log whose lines a test waits for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	var e map[string]any
	json.Unmarshal(p, &e)
	text := fmt.Sprintf("%v %v", e["event"], e["msg"])
	select {
	case l <- text:
	default: // a test that does not read
	}
	return len(p), nil
}

// await returns the next line that has a text in it, with those before it.
func (l lines) await(t *testing.T, text string) string {
	t.Helper()
	all, late := "", time.After(testTimeout)
	for {
		select {
		case line := <-l:
			if all += line + "\n"; strings.Contains(line, text) {
				return all
			}
		case <-late:
			t.Fatalf("%q did not come; there came\n%s", text, all)
		}
	}
}

func runner(t *testing.T, cfg Config) (*Runner, lines) {
	t.Helper()
	log := make(lines, 10000)
	if cfg.Timeout == 0 {
		cfg.Timeout = testTimeout
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	r := New(cfg, slog.New(slog.NewJSONHandler(log, nil)))
	t.Cleanup(func() { r.Close(testTimeout) })
	return r, log
}

func said(name string, fields ...any) []byte {
	e := map[string]any{"event": name}
	for i := 0; i < len(fields); i += 2 {
		e[fields[i].(string)] = fields[i+1]
	}
	b, _ := json.Marshal(e)
	return append(b, '\n')
}

// A hook has the event on its stdin and in its environment, and runs where it is told to.
func TestHookIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, log := runner(t, Config{Dir: dir, Env: append(os.Environ(), "MINE=yes"), Commands: map[string][]string{
		"worker.crashed": {`echo "$HANDOFF_EVENT $HANDOFF_SLOT $HANDOFF_NOT_UTF8 $MINE $HANDOFF_LIST"; cat > stdin; pwd`, "echo second"}}})
	line := said("worker.crashed", "slot", 3, "list", []int{1}, "not-utf8", "a b", "bad", "x\x00y")
	r.Event(line)
	got := log.await(t, "second")
	for _, want := range []string{"hook.output Hook: worker.crashed 3 a b yes \n", "hook.output Hook: " + dir + "\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "stdin")); string(b) != string(line) {
		t.Errorf("stdin was %q", b)
	}
	r.Event(said("worker.ready")) // nobody wants it
	r.Event(said("hook.output"))  // its own
	r.Event([]byte("no JSON"))
	r.Event(said("worker.crashed", "slot", 4))
	if got := log.await(t, "second"); strings.Count(got, "Hook:") != 3 || !strings.Contains(got, "crashed 4") {
		t.Errorf("%s", got)
	}
}

// How a hook ends is said, with its last words, and the next one runs all the same.
func TestHookFails(t *testing.T) {
	t.Parallel()
	r, log := runner(t, Config{Commands: map[string][]string{"e": {"echo one; echo last >&2; exit 3", "no-such-command", "echo done"}}})
	r.Event(said("e"))
	got := log.await(t, "Hook: done")
	for _, want := range []string{"hook.failed Hook failed: exit status 3: last", "hook.failed Hook failed: exit status 127"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	r.Set(Config{Dir: "/no/such/folder", Timeout: time.Second, Commands: map[string][]string{"e": {"true"}}})
	r.Event(said("e"))
	if got := log.await(t, "hook.failed"); !strings.Contains(got, "/no/such/folder") {
		t.Error(got)
	}
}

// A hook that takes too long is killed, with what it has started, in a session of its own
// too.
func TestHookIsKilled(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"sleep 1000 & echo $! > child; wait", "setsid -w sh -c 'echo $$ > child; exec sleep 1000'"} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r, log := runner(t, Config{Dir: dir, Timeout: time.Second, Commands: map[string][]string{"e": {command}}})
			r.Event(said("e"))
			if got := log.await(t, "hook.failed"); !strings.Contains(got, "not done within 1s, killed") {
				t.Error(got)
			}
			b, err := os.ReadFile(filepath.Join(dir, "child"))
			pid, aerr := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || aerr != nil {
				t.Fatal(err, aerr)
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return // it is gone
			}
			defer unix.Close(fd)
			ended(t, fd)
		})
	}
}

// ended waits until a process has.
func ended(t *testing.T, pidfd int) {
	t.Helper()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(testTimeout.Milliseconds())); n != 1 {
		t.Fatalf("it goes on: %v", err)
	}
}

// A hook that leaves something behind with its output holds nobody up.
func TestHookLeavesSomethingBehind(t *testing.T) {
	t.Parallel()
	r, log := runner(t, Config{Commands: map[string][]string{"e": {"sleep 1000 & echo $!"}, "next": {"echo here"}}})
	r.Event(said("e"))
	r.Event(said("next"))
	got := log.await(t, "here")
	var pid int
	fmt.Sscanf(got[strings.Index(got, "Hook: "):], "Hook: %d", &pid)
	if pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	} else {
		t.Error(got)
	}
}

// A hook that writes without end is logged up to a bound, and its last line is known.
func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	r, log := runner(t, Config{Commands: map[string][]string{"e": {"seq 1 5000; exit 1"}, "long": {"printf '%3000d\\n' 7; exit 1"}}})
	r.Event(said("e"))
	if got := log.await(t, "hook.failed"); strings.Count(got, "hook.output") != maxLines || !strings.Contains(got, "exit status 1: 5000") {
		t.Errorf("%d lines, %s", strings.Count(got, "hook.output"), got[len(got)-80:])
	}
	r.Event(said("long"))
	for line := range strings.Lines(log.await(t, "hook.failed")) {
		if len(line) > maxLine+100 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// Events that come faster than hooks run are dropped at a bound, and that is said.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	syscall.Mkfifo(filepath.Join(dir, "gate"), 0o600)
	r, log := runner(t, Config{Dir: dir, Commands: map[string][]string{"gate": {"cat gate"}, "e": {"true"}, "last": {"echo last"}}})
	r.Event(said("gate"))
	gate, err := os.OpenFile(filepath.Join(dir, "gate"), os.O_WRONLY, 0) // when the hook has opened it
	if err != nil {
		t.Fatal(err)
	}
	for range maxQueue + 7 {
		r.Event(said("e"))
	}
	r.Set(Config{Timeout: testTimeout, Commands: map[string][]string{"last": {"echo last"}}})
	io.WriteString(gate, "open\n")
	gate.Close()
	if got := log.await(t, "hook.lost"); !strings.Contains(got, "events dropped") {
		t.Error(got)
	}
}

// before_reload and before_ready may refuse; the caller waits for them.
func TestAsk(t *testing.T) {
	t.Parallel()
	r, log := runner(t, Config{Timeout: 500 * time.Millisecond, Commands: map[string][]string{
		"ok": {"true", "test $HANDOFF_SLOT = 2"}, "no": {"true", "echo frozen; exit 1", "echo not asked"}, "slow": {"sleep 1000"}}})
	if err := r.Ask("ok", map[string]any{"slot": 2}); err != nil {
		t.Error(err)
	}
	if err := r.Ask("nobody", nil); err != nil {
		t.Error(err)
	}
	if err := r.Ask("no", nil); err == nil || err.Error() != "no refuses: exit status 1: frozen" {
		t.Error(err)
	}
	if err := r.Ask("slow", nil); err == nil || err.Error() != "slow refuses: not done within 500ms, killed" {
		t.Error(err)
	}
	r.Close(testTimeout)
	close(log)
	for line := range log {
		if strings.Contains(line, "not asked") {
			t.Error("asked after the refusal")
		}
	}
}

// Close waits for what has happened, and no longer than it is told to.
func TestClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, _ := runner(t, Config{Dir: dir, Commands: map[string][]string{"e": {"echo x >> done"}}})
	for range 20 {
		r.Event(said("e"))
	}
	r.Close(testTimeout)
	r.Event(said("e"))
	if b, _ := os.ReadFile(filepath.Join(dir, "done")); strings.Count(string(b), "x") != 20 {
		t.Errorf("%q", b)
	}
	stuck, _ := runner(t, Config{Timeout: time.Second, Commands: map[string][]string{"e": {"sleep 1000"}}})
	stuck.Event(said("e"))
	stuck.Close(time.Millisecond) // returns
}

// RackMan's script hears of everything, in one process, that is started anew when it has
// gone.
func TestScript(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not in PATH")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, ".rackhooks.js")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, log := runner(t, Config{Dir: dir, Script: path})
	r.Event(said("worker.ready")) // there is no script yet
	write(`let n = 0
module.exports = {
  cluster: { reloading () { console.log('reloads', process.pid, ++n) }, changed (file) { process.exit(3) }, shutdown () { return Promise.reject(new Error('later')) } },
  worker: { started (port) { throw new Error('at ' + port) } } }
`)
	r.Event(said("cluster.reloading"))
	first := log.await(t, "Hook: reloads")
	r.Event(said("worker.ready", "port", 80)) // what throws is said, and hurts nobody
	log.await(t, "Hook: Error in workerStarted hook: at 80")
	r.Event(said("cluster.shutdown"))
	log.await(t, "Hook: Error in clusterShutdown hook: later")
	for range 20 {
		r.Event(said("cluster.reloading"))
	}
	_, pid, _ := strings.Cut(first, "reloads ")
	pid, _, _ = strings.Cut(pid, " ")
	if got := log.await(t, "Hook: reloads "+pid+" 21"); strings.Contains(got, "Warning") {
		t.Error(got)
	}
	write("module.exports = { cluster: { reloading () { console.log('changed', process.pid) }, changed () { process.exit(3) } } } // longer, shorter\n")
	r.Event(said("cluster.reloading"))
	log.await(t, "Hook: changed "+pid) // the same process, the new text
	n, _ := strconv.Atoi(pid)
	process, err := unix.PidfdOpen(n, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	r.Event(said("cluster.changed", "file", "x"))
	ended(t, process)
	r.Event(said("cluster.reloading"))
	if got := log.await(t, "Hook: changed"); strings.Contains(got, pid) {
		t.Error(got)
	}
	write("this is no JavaScript")
	r.Event(said("cluster.reloading"))
	log.await(t, "Hook: Error in "+path)
}

func TestScriptOfSomebodyElse(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), ".rackhooks.js")
	os.WriteFile(path, nil, 0o644)
	os.Chown(path, 65534, 65534)
	r, log := runner(t, Config{Script: path})
	r.Event(said("worker.ready"))
	if got := log.await(t, "hook.failed"); os.Geteuid() == 0 && !strings.Contains(got, "belongs to another user (65534)") {
		t.Error(got)
	}
}

func TestScriptThatOthersCanWrite(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), ".rackhooks.js")
	os.WriteFile(path, nil, 0o644)
	os.Chmod(path, 0o666)
	r, log := runner(t, Config{Script: path})
	r.Event(said("worker.ready"))
	if got := log.await(t, "hook.failed"); !strings.Contains(got, "others can write "+path) {
		t.Error(got)
	}
}
