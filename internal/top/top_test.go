package top

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"handoff/internal/admin"
	"handoff/internal/api"
)

// The screen fits, however many workers there are and however long their words.
func TestScreenFits(t *testing.T) {
	now := time.Now()
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}} {
		for _, n := range []int{0, 1, 4, 64} {
			m := &model{client: &admin.Client{Name: "web"}, width: size[0], height: size[1], history: map[int]*history{}}
			var s api.Status
			s.Name, s.State, s.LastError = "web", "degraded", strings.Repeat("wrong ", 50)
			for i := range n / 2 {
				s.Vacant = append(s.Vacant, api.SlotStatus{Slot: n + i, State: api.SlotBackoff, Failures: 3, At: &now})
				s.Next = append(s.Next, api.NextStatus{Action: "start", Slot: n + i, At: &now, Failures: 3})
			}
			for i := range n {
				s.Workers = append(s.Workers, api.WorkerStatus{Slot: i, Worker: i + 1, Status: strings.Repeat("é", 100), CPU: float64(i)})
			}
			m.took(statusMsg{s, now, nil})
			m.took(statusMsg{s, now.Add(time.Second), nil})
			for range 100 {
				m.heard(lineMsg{"events", []byte(`{"time":"2026-11-21T12:00:00Z","level":"ERROR","msg":"` + strings.Repeat("long ", 100) + `"}`)})
			}
			lines := m.screen()
			if text := ansi.Strip(strings.Join(lines, "\n")); n > 1 && size[1] > 20 && (!strings.Contains(text, "3rd failure") || !strings.Contains(text, "next: slot")) {
				t.Errorf("%v, %d workers: nothing of what is to come in\n%s", size, n, text)
			}
			if len(lines) > size[1] {
				t.Errorf("%v, %d workers: %d lines", size, n, len(lines))
			}
			for _, line := range lines {
				if w := ansi.StringWidth(line); w > size[0] {
					t.Errorf("%v, %d workers: %d columns: %q", size, n, w, line)
				}
			}
			if !strings.Contains(ansi.Strip(lines[len(lines)-1]), "r reload") {
				t.Errorf("%v: the last line is %q", size, lines[len(lines)-1])
			}
		}
	}
}

func TestSelectionFollowsItsWorker(t *testing.T) {
	before := []api.WorkerStatus{{Slot: 0, Worker: 1}, {Slot: 1, Worker: 2}}
	now := []api.WorkerStatus{{Slot: 0, Worker: 1, Phase: "draining"}, {Slot: 0, Worker: 3, Steered: true}, {Slot: 1, Worker: 2}}
	if i := follow(before, now, 1); i != 2 {
		t.Errorf("row %d, want that of worker 2", i)
	}
	if i := follow(before, now, 0); i != 1 {
		t.Errorf("row %d, want that which serves slot 0", i)
	}
	if i := follow(before, nil, 1); i != 0 {
		t.Errorf("row %d of none", i)
	}
}

func TestSpark(t *testing.T) {
	if got := spark([]float64{9, 0, .5, 1}, 3); got != "▁▄█" {
		t.Errorf("%s", got)
	}
}
