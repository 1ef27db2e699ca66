package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// replayed is the state that results from a stream of events: it must equal the
// status, so that a reader of events alone knows as much.
func replayed(events []event) string {
	workers := map[int]string{}
	generation, slots := 0, 0
	for _, e := range events {
		about := func(phase string) string {
			return fmt.Sprintf("worker %d: slot %d, generation %d, pid %d, %s", e.Worker, e.Slot, e.Generation, e.PID, phase)
		}
		switch e.Name {
		case "cluster.started":
			generation, slots = e.Generation, e.Workers
		case "cluster.reloaded":
			generation = e.Generation
		case "cluster.scaled":
			if e.Level == "INFO" {
				slots = e.Workers
			}
		case "worker.started":
			workers[e.Worker] = about("starting")
		case "worker.ready":
			workers[e.Worker] = about("serving")
		case "worker.draining":
			workers[e.Worker] = about("draining")
		case "worker.shutdown", "worker.crashed", "worker.lost":
			delete(workers, e.Worker)
		case "worker.killed":
			for id, text := range workers { // one that no record knows has no number
				if e.Worker == 0 && strings.Contains(text, fmt.Sprintf("pid %d,", e.PID)) {
					delete(workers, id)
				}
			}
		}
	}
	var lines []string
	for _, text := range workers {
		lines = append(lines, text)
	}
	slices.Sort(lines)
	return fmt.Sprintf("generation %d, %d slots\n%s", generation, slots, strings.Join(lines, "\n"))
}

// consistent checks that the events so far say the same as the status. What is on its
// way between two looks is waited for. What a master has started within the last
// moments before its death, and what has died of that death, is in no record, so that
// no event says its end: who follows the events must look whether it is there.
func (w *world) consistent(env []string) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var told, asked string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-tick.C {
		out, _, _ := handoff(w.t, env, "status", "--json")
		var s struct {
			Generation, Slots int
			Workers           []struct {
				Worker, Slot, Generation, PID int
				Phase                         string
			}
		}
		if json.Unmarshal([]byte(out), &s) != nil {
			continue // between two masters
		}
		var lines []string
		for _, x := range s.Workers {
			phase := strings.Replace(x.Phase, "quieting", "serving", 1) // steered away, and nothing to say yet
			lines = append(lines, fmt.Sprintf("worker %d: slot %d, generation %d, pid %d, %s", x.Worker, x.Slot, x.Generation, x.PID, phase))
		}
		slices.Sort(lines)
		asked = fmt.Sprintf("generation %d, %d slots\n%s", s.Generation, s.Slots, strings.Join(lines, "\n"))
		w.mu.Lock()
		events := slices.Clone(w.events)
		w.mu.Unlock()
		told = replayed(withoutUnrecorded(events, asked))
		if told == asked {
			return
		}
	}
	w.t.Errorf("the events say\n%s\nand the status\n%s", told, asked)
}

// withoutUnrecorded leaves out the start of a worker that is in no record: another master
// has adopted since, nothing else was ever said of the worker, its process is gone, and
// the status does not have it.
func withoutUnrecorded(all []event, status string) []event {
	adopted := -1
	said := map[int]int{}
	for i, e := range all {
		said[e.Worker]++
		if e.Name == "master.adopted" || e.Name == "master.recovered" || e.Name == "master.upgraded" {
			adopted = i
		}
	}
	var known []event
	for i, e := range all {
		if e.Name == "worker.started" && i < adopted && said[e.Worker] == 1 && syscall.Kill(e.PID, 0) != nil && !strings.Contains(status, fmt.Sprintf("pid %d,", e.PID)) {
			continue
		}
		known = append(known, e)
	}
	return known
}

func TestReplay(t *testing.T) {
	t.Parallel()
	gone := []event{{Name: "worker.started", Worker: 1, PID: 1 << 30}, {Name: "master.adopted"}, {Name: "worker.started", Worker: 2, PID: 1 << 30}}
	if got := withoutUnrecorded(gone, ""); len(got) != 2 || got[1].Worker != 2 {
		t.Errorf("%+v: only a start before the adoption may be in no record", got)
	}
	if got := replayed([]event{{Name: "worker.started", Worker: 1, PID: 7}, {Name: "worker.crashed", Worker: 1}, {Name: "cluster.scaled", Level: "WARN", Workers: 9}}); got != "generation 0, 0 slots\n" {
		t.Errorf("%q", got)
	}
}
