package prove

import (
	"testing"

	"handoff/internal/api"
	"handoff/internal/linux"
)

// Processes that have overwritten their environment belong to the worker that they come
// from, or whose process group they are in.
func TestGenerationBelow(t *testing.T) {
	all := map[int]linux.Stat{}
	for _, s := range []linux.Stat{
		{PID: 10, Parent: 2, Group: 10},  // a worker
		{PID: 11, Parent: 10, Group: 11}, // its child, with a group of its own
		{PID: 12, Parent: 11, Group: 11},
		{PID: 20, Parent: 1, Group: 10}, // left behind by it
		{PID: 30, Parent: 2, Group: 30},
		{PID: 40, Parent: 41, Group: 40}, {PID: 41, Parent: 40, Group: 41}, // read while pids change hands
	} {
		all[s.PID] = s
	}
	workers := []api.WorkerStatus{{PID: 10, Generation: 3}, {PID: 30, Generation: 4}}
	for pid, want := range map[int]int{10: 3, 11: 3, 12: 3, 20: 3, 30: 4, 2: 0, 40: 0, 99: 0} {
		if got := generationBelow(pid, all, workers); got != want {
			t.Errorf("%d: %d, want %d", pid, got, want)
		}
	}
}
