package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/load"
)

// Without overlap a program with a lock is reloaded: the next one starts when the one before
// has ended, and connections wait in the meantime. A new version that does not start is
// followed by the one before.
func TestOverlapNone(t *testing.T) {
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	for version, last := range map[string]string{"v1": "exec " + goProgram("goserver"), "v2": "echo it is broken >&2; exit 1"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, version, "run.sh"), "exec 9>"+dir+"/lock\nflock -n 9 || { echo already running >&2; exit 1; }\n"+last+"\n", 0o755)
	}
	link := func(version string) {
		if err := os.Symlink(version, current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	link("v1")
	w := start(t, options{flags: []string{"-n", "1", "--overlap", "none"}, app: []string{"sh", filepath.Join(current, "run.sh")}, env: []string{"PORT=" + freePort(t)}})
	run := w.load(load.Config{Clients: 8})
	run.Await(20, testTimeout)
	for range times(20, 2) {
		w.reload()
		w.retired(1)
		run.Await(20, testTimeout)
	}
	if e := w.await("address.waited"); !strings.Contains(e.Msg, "wait") {
		t.Errorf("%+v", e)
	}
	link("v2")
	w.signal(syscall.SIGUSR2)
	if e := w.await("cluster.failed"); !strings.Contains(e.Msg, "is started again") || !strings.Contains(e.Stderr, "it is broken") {
		t.Errorf("%+v", e)
	}
	w.awaitWhere("worker.ready", func(e event) bool { return e.Generation == 1+times(20, 2) })
	run.Await(20, testTimeout)
	w.nothingLost(run)
	w.stop()
}
