package master

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
)

// A slot that waits after a failed start is in the status, with when it starts again; how
// often, and why, workers were replaced counts all reasons, and outlives the master.
func TestStatusOfWhatIsToCome(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broken")
	cfg := base("later-workers-crash", ActivationContract)
	cfg.MaxRequests = 1000
	cfg.Command.Env = append(cfg.Command.Env, "FILE="+file)
	live := cfg.Live
	live.Fleet.Respawn, live.Fleet.Backoff = time.Hour, time.Hour
	cfg.Reread = func() (Live, []string, error) { return live, nil, nil }
	w := activated(t, cfg)
	slot, _, _ := w.ask("requests") // is too many
	w.await("worker.recycled", fmt.Sprint("slot=", slot))
	w.await("worker.shutdown", fmt.Sprint("slot=", slot))
	if _, err := w.control.Reload(t.Context()); err != nil { // from now on starts wait for an hour
		t.Fatal(err)
	}
	w.await("cluster.reloaded")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, _, pid := 0, 0, 0
	for other, _, pid = w.ask("who"); other == slot; other, _, pid = w.ask("who") {
	}
	unix.Kill(pid, unix.SIGKILL)
	w.await("worker.crashed", fmt.Sprint("pid=", pid))
	s := w.status()
	if len(s.Vacant) != 1 || s.Vacant[0].At == nil {
		t.Fatalf("vacant: %+v", s.Vacant)
	}
	if s.Vacant[0].Slot != other || s.Vacant[0].State != api.SlotBackoff || s.Vacant[0].Failures != 1 || s.Vacant[0].RestartReasons["crashed"] != 1 {
		t.Errorf("vacant: %+v", s.Vacant)
	}
	starts := func(n api.NextStatus) bool {
		return n.Action == "start" && n.Slot == other && n.Failures == 1 && n.At.Equal(*s.Vacant[0].At)
	}
	if !slices.ContainsFunc(s.Next, starts) {
		t.Errorf("next: %+v", s.Next)
	}
	for _, x := range s.Workers {
		if got := api.RestartsText(x.RestartReasons, x.Restarts); x.Slot == slot && got != "1 (1 recycled: max requests)" {
			t.Errorf("slot %d: %s", slot, got)
		}
	}
}
