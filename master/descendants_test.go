package master

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// started runs a program that does not stay, and tells how the start fails.
func started(t *testing.T, role string, contract Contract) (reason string) {
	cfg := base(role, contract)
	cfg.PID, cfg.Instance = os.Getpid(), t.Name()
	cfg.Fleet.Slots, cfg.Fleet.KillGrace = 1, 50*time.Millisecond
	w := run(t, cfg)
	reason = w.await("cluster.failed")
	if code := w.ends(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	n := 0
	for _, line := range w.log.all {
		if strings.HasPrefix(line, "worker.started") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was started %d times", n)
	}
	return reason
}

// A program that goes into the background is told how not to, is not tried again, and is
// ended before the service has stopped.
func TestIntoTheBackground(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	for role, contract := range map[string]Contract{"background": ActivationContract, "background-unseen": BindContract} {
		if reason := started(t, role, contract); !strings.Contains(reason, "went into the background (it exited with code 0, ") || !strings.Contains(reason, " goes on): run it in the foreground") {
			t.Error(reason)
		}
		for _, pid := range linux.Children(os.Getpid()) {
			if env := linux.Environ(pid); linux.Lookup(env, "HANDOFF_INSTANCE") == t.Name() || linux.Lookup(env, "OF") == role {
				t.Errorf("%s: process %d is left", role, pid)
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

func TestTask(t *testing.T) {
	if reason := started(t, "task", ActivationContract); !strings.Contains(reason, "ended by itself with exit code 0 before it listened") {
		t.Error(reason)
	}
}
