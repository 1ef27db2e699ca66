package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The JSON that other programs parse, byte by byte. These files only ever gain
// fields.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 11, 26, 10, 0, 0, 123456789, time.UTC)
	ready := at.Add(time.Second)
	full := Status{Upgrades: 2, Finishing: []FinishingStatus{{Worker: 1, Processes: 3, Until: ready}},
		Schema: 1, Name: "web", Version: "1.2.3", PID: 100, Started: at, State: StateReloading, Generation: 2, Wanted: 3, Slots: 2, Ready: 2, LastError: "slot 0 failed",
		Reload:    &ReloadStatus{Generation: 3, Outcome: OutcomeFailed, Reason: "exit code 1", Stderr: []string{"Error: no database"}, Began: at, Seconds: 1.5},
		Failed:    &ChangeStatus{Change: ChangeScale, Workers: 3, Slot: 2, Reason: "exit code 1", Stderr: []string{"Error: no database"}, At: at},
		Addresses: []AddressStatus{{Address: "127.0.0.1:3000", Balance: "even", Queue: 4}},
		Workers: []WorkerStatus{
			{Slot: 0, PID: 101, Worker: 1, Generation: 2, Phase: PhaseServing, Steered: true, Started: at, Ready: &ready, Queue: 3, Restarts: 1, Status: "serves",
				Reloading: true, Port: 3001, Requests: 7, Stalled: true, RSS: 1 << 20, CPU: 0.25},
			{Slot: 1, PID: 102, Worker: 2, Generation: 3, Phase: PhaseStarting, Started: at}}}
	h := Histogram{Counts: []int{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, Sum: 240.5}
	counters := Counters{Reloads: map[string]int{"served": 3, "failed": 1}, Restarts: map[string]int{"crashed": 2, "hung": 1}, Steerings: 4, Rescued: 5,
		Stranded: 6, Masters: 7, Upgrades: 8, Stalls: 9, MaxQueue: 10, Ready: h, Drain: h, Reload: h}
	for name, v := range map[string]any{
		"status.json": full, "status-empty.json": Status{}, "metrics.json": Metrics{full, counters}, "metrics-empty.json": Metrics{},
	} {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil || string(got)+"\n" != string(want) {
			t.Errorf("%s, %v:\n%s", name, err, got)
		}
	}
}

// What a client of before understands of an answer of now, and the other way round.
func TestUnknownAndMissingFields(t *testing.T) {
	var s Status
	if err := json.Unmarshal([]byte(`{"schema":1,"state":"serving","ready":1,"slots":1,"generation":2,"not_known":{"a":1}}`), &s); err != nil || !s.Serves() {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestServes(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want bool
	}{
		{Status{}, false},
		{Status{Generation: 1, Slots: 2, Ready: 1, State: StateDegraded}, false},
		{Status{Generation: 1, Slots: 2, Ready: 2, State: StateServing}, true},
		{Status{Generation: 1, Slots: 2, Ready: 2, State: StateReloading}, true},
		{Status{Generation: 1, Slots: 2, Ready: 2, State: StateStopping}, false},
		{Status{Generation: 1, Slots: 2, Ready: 2, State: StateReloading, Addresses: []AddressStatus{{Address: "a"}, {Address: "b", Unserved: true}}}, false},
	} {
		if got := c.s.Serves(); got != c.want {
			t.Errorf("%+v: %v", c.s, got)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, 50 * time.Millisecond, 51 * time.Millisecond, time.Second, 2 * time.Minute, time.Hour} {
		h.Add(d)
	}
	b, _ := json.Marshal(h)
	if want := `{"counts":[2,1,0,0,1,0,0,0,0,0,1,1],"sum":3721.101}`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}

func TestCounters(t *testing.T) {
	var c Counters
	c.CountReload(OutcomeServed)
	c.CountReload(OutcomeServed)
	c.CountRestart(0, "hung", "")
	c.CountRestart(1, "recycled", "max memory")
	of := c.Clone()
	c.CountRestart(1, "recycled", "max memory")
	c.CountReload(OutcomeServed)
	c.Ready.Add(0)
	of.Ready.Add(time.Hour)
	if of.Reloads["served"] != 2 || len(of.Ready.Counts) == 0 || of.Ready.Counts[0] != 0 {
		t.Errorf("a copy changes with what it was copied from: %+v", of)
	}
	if of.Slots[1]["recycled: max memory"] != 1 || c.Slots[1]["recycled: max memory"] != 2 {
		t.Errorf("restarts of slots: %v, and its copy %v", c.Slots, of.Slots)
	}
	if c.Reloads["served"] != 3 || c.Restarts["hung"] != 1 {
		t.Errorf("%+v", c)
	}
}

func TestCodes(t *testing.T) {
	seen := map[Code]bool{}
	for _, info := range Codes() {
		if seen[info.Code] || info.Text == "" || info.Code.Status() != info.Status {
			t.Errorf("%+v", info)
		}
		seen[info.Code] = true
	}
	if got := Code("of a later version").Status(); got != 409 {
		t.Errorf("%d", got)
	}
	b, _ := json.Marshal(Errorf(CodeNoChannel, "worker %d has no IPC channel", 3))
	if want := `{"error":"worker 3 has no IPC channel","code":"no_channel"}`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
