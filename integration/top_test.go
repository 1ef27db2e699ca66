package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// terminal is a program in a terminal of 80 columns and 24 lines.
type terminal struct {
	t      *testing.T
	socket string
}

func openTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("no tmux here; .ci/run installs it")
	}
	x := &terminal{t, filepath.Join(t.TempDir(), "tmux")}
	var quoted []string
	for _, a := range append(append([]string{"env", "LANG=C.UTF-8"}, env...), args...) {
		quoted = append(quoted, "'"+a+"'")
	}
	x.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", strings.Join(quoted, " ")+"; echo ended $?; exec cat")
	t.Cleanup(func() { exec.Command("tmux", "-S", x.socket, "kill-server").Run() })
	return x
}

func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-S", x.socket}, args...)...)
	cmd.Env = append(os.Environ(), "LANG=C.UTF-8", "TERM=xterm-256color")
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (x *terminal) press(keys ...string) { x.tmux(append([]string{"send-keys"}, keys...)...) }

// await waits until the screen has all the parts.
func (x *terminal) await(parts ...string) string {
	x.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	screen := ""
	for end := time.Now().Add(testTimeout); time.Now().Before(end); <-tick.C {
		screen = x.tmux("capture-pane", "-p")
		all := true
		for _, p := range parts {
			all = all && strings.Contains(screen, p)
		}
		if all {
			return screen
		}
	}
	x.t.Fatalf("no %q on the screen:\n%s", parts, screen)
	return ""
}

func TestTop(t *testing.T) {
	t.Parallel()
	env := []string{"HANDOFF_RUNTIME_DIR=" + t.TempDir()}
	app := filepath.Join(t.TempDir(), "app.js")
	put(t, app, "setInterval(() => console.log('tick of ' + process.pid), 100); require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)", 0o644)
	w := start(t, options{app: []string{app}, flags: []string{"-n", "2", "--name", "web", "--capture", "json", "--keepalive-linger", "100ms"}, env: append(env, "PORT="+freePort(t))})
	x := openTerminal(t, env, binary, "top")
	screen := x.await("web  ● serving  2/2 ready  generation 1", "SLOT", "Generation serves", "r reload")
	if lines := strings.Split(strings.TrimRight(screen, "\n"), "\n"); len(lines) > 24 || !strings.Contains(lines[len(lines)-1], "q quit") {
		t.Errorf("%d lines:\n%s", len(lines), screen)
	}
	x.press("r")
	w.await("cluster.reloaded")
	x.await("generation 2", "Reloaded: generation serves", "reload requested")
	x.press("+")
	x.await("3/3 ready", "adding a worker")
	x.press("-")
	w.await("cluster.scaled")
	x.await("2/2 ready", "removing a worker")
	w.settled(2)
	x.await(" 1 ", "2/2 ready", "Worker ended")
	x.press("Down")
	x.press("x")
	x.await("replacing slot 1")
	x.press("l")
	x.await("── output", "web.1 | tick of ")
	// A master that dies, and the next one.
	w.killMaster()
	x.press("l")
	x.await("● serving", "this one continues with its workers")
	x.press("S")
	x.await("Stop the service? y")
	x.press("n")
	x.press("y") // too late: it was not the answer
	x.press("r")
	w.await("cluster.reloaded")
	if n := len(w.all("cluster.shutdown")); n > 0 {
		t.Error("it was stopped without a y")
	}
	x.press("q")
	x.await("ended 0")
	x = openTerminal(t, env, binary, "top", "web")
	x.await("serving")
	x.press("S")
	x.await("Stop the service? y")
	x.press("y")
	w.exits(0)
	x.await("does not respond")
	x.press("q")
	x.await("ended 0")
	if _, errs, code := handoff(t, env, "top", "web"); code != 3 {
		t.Errorf("code %d: %s", code, errs)
	}
}
