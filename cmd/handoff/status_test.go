package main

import (
	"bytes"
	"testing"
	"time"

	"handoff/internal/api"
)

// What is not well has a row, and an exit code of its own; what comes next is said.
func TestStatusOfTrouble(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	s := api.Status{Name: "web", State: "degraded", PID: 9, Slots: 4, Ready: 2, Generation: 1, Started: now.Add(-time.Minute),
		Workers: []api.WorkerStatus{
			{Slot: 0, Worker: 1, PID: 100, Generation: 1, Phase: "serving", Ready: in(-time.Second), CPU: 1, Stalled: true, Queue: 7,
				RestartReasons: map[string]int{"crashed": 1, "recycled: max memory": 2}},
			{Slot: 3, Worker: 2, PID: 103, Generation: 1, Phase: "serving", Ready: in(-time.Second)}},
		Vacant: []api.SlotStatus{{Slot: 1, State: "backoff", Generation: 1, Failures: 3, At: in(4 * time.Second), RestartReasons: map[string]int{"crashed": 3}},
			{Slot: 2, State: "not started", Generation: 1}},
		Finishing: []api.FinishingStatus{{Worker: 7, Processes: 3, Until: *in(20 * time.Second)}},
		Next: []api.NextStatus{{Action: "start", Slot: 1, At: in(4 * time.Second), Failures: 3}, {Action: "recycle", Slot: 3, At: in(2 * time.Hour), Reason: "older than its maximum age"},
			{Action: "reload", Slot: -1, At: in(30 * time.Hour)}, {Action: "recycle", Slot: 0, Reason: "1000 requests served"}, {Action: "replace", Slot: 3, At: in(5 * time.Minute)}, {Action: "dance", At: in(0)}}}
	var cpu usage
	cpu.sample(s, now)
	s.Workers[0].CPU += 0.12
	var b bytes.Buffer
	printStatus(&b, s, cpu.sample(s, now.Add(time.Second)), now)
	want := `web: degraded, 2 of 4 slots ready, generation 1, pid 9, up 1m 0s

SLOT  PID  GEN  PHASE        READY  QUEUE  RESTARTS                               CPU  MEMORY  STATUS
0     100  1    stalled      1s     7      3 (2 recycled: max memory, 1 crashed)  12%  0.0 MB  
1     -    1    backoff      -      -      3 (3 crashed)                          -    -       3rd failure; starts again in 4 s
2     -    1    not started  -      -      0                                      -    -       no worker is started
3     103  1    serving      1s     0      0                                      0%   0.0 MB  

draining: 3 processes that worker 7 has left finish their connections, for 20s more at most
next: slot 1 starts again in 4 s (3rd failure)
next: slot 3 is recycled at 05:04: older than its maximum age
next: reload at 2026-01-03 09:04 (--reload-every)
next: slot 0 is recycled when its turn comes: 1000 requests served
next: the worker that replaces the one in slot 3 starts in 5 min
next: dance now
`
	if got := b.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if code := statusCode(s); code != 5 {
		t.Errorf("exit code %d", code)
	}
	s.Vacant = nil
	if code := statusCode(s); code != 1 {
		t.Errorf("exit code %d", code)
	}
	s.Ready = 4
	if code := statusCode(s); code != 4 {
		t.Errorf("exit code %d", code)
	}
	s.Workers[0].Stalled = false
	if code := statusCode(s); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
