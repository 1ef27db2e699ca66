package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// As pid 1 of a container handoff starts, reloads, upgrades, loses its master,
// reaps strangers, stops with drain, and its exit code is the container's.
func TestPid1(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "-p", "-f", "--mount-proc", "true").CombinedOutput(); err != nil {
		t.Skipf("no pid namespace here: %s", out)
	}
	own := t.TempDir() + "/handoff"
	copyFile(t, binary, own)
	// A stranger: an orphan that ends at once, again and again.
	w := start(t, options{behind: []string{"unshare", "-p", "-f", "--kill-child", "--mount-proc"}, binary: own,
		flags: []string{"-n", "2"}, app: []string{"sh", "-c", "(for i in 1 2 3 4 5; do (sh -c 'sleep 0.1 &'); done); exec node " + data("server.js")},
		env: []string{"PORT=" + freePort(t), "BASH_ENV="}})
	w.keeper = children(w.cmd.Process.Pid)[0]
	run := w.load(load.Config{Clients: 4})
	run.Await(100, testTimeout)
	w.reload()
	w.retired(2)
	w.killMaster()
	w.reload()
	w.retired(2)
	other := own + ".new"
	copyFile(t, binary, other)
	appendTo(t, other, "x")
	if err := os.Rename(other, own); err != nil {
		t.Fatal(err)
	}
	w.signal(syscall.SIGUSR2)
	w.await("master.upgraded")
	w.await("cluster.reloaded")
	w.retired(2)
	w.nothingLost(run)
	for deadline := time.Now().Add(testTimeout); ; {
		zombies := 0
		for _, pid := range children(w.keeper) {
			if processState(pid) == "Z" {
				zombies++
			}
		}
		if zombies == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d zombies", zombies)
		}
	}
	w.signal(syscall.SIGTERM)
	w.keeper = 0
	w.exits(0)
}

// A program that cannot be started ends the container with handoff's code.
func TestPid1Fails(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("unshare", "-p", "-f", "--kill-child", "--mount-proc", binary, "run", "--max-failures", "1", "--", "sh", "-c", "exit 7")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "unshare failed") || strings.Contains(string(out), "unshare:") {
		t.Skip(string(out))
	}
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, %v, want 1\n%s", code, err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprint(f, text)
}
