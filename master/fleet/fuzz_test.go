package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The state of an earlier master, of this or another version, perhaps of one with a fault:
// the fleet goes on from it, in bounded steps, and what it says next is a state again.
func FuzzRestore(f *testing.F) {
	paths, _ := filepath.Glob("../snapshot/testdata/record-*.json")
	if len(paths) < 2 {
		f.Fatal("where are the records?")
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var record struct{ Fleet json.RawMessage }
		if err := json.Unmarshal(b, &record); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(record.Fleet), uint16(3))
	}
	f.Add([]byte(`{"slots": 2, "last_id": 1, "live": 1, "wanted": 2, "workers": [{"id": 1, "slot": 5, "gen": 1, "phase": 1}, {"id": 1, "slot": -1, "gen": 7, "phase": 9}], "seats": [{"slot": 9}], "steered": [4, 4]}`), uint16(20))
	f.Fuzz(func(t *testing.T, b []byte, steps uint16) {
		var s State
		if json.Unmarshal(b, &s) != nil || s.Slots > 64 || len(s.Workers) > 64 || len(s.SlotStates) > 64 {
			return
		}
		now := time.Unix(1_700_000_000, 0)
		cfg := testConfig()
		fleet, _ := Restore(cfg, s, now)
		for range steps % 64 {
			var actions []Action
			wake := now
			if actions, wake = fleet.Step(now, nil); len(actions) > 10_000 {
				t.Fatalf("%s: %d actions in a step", b, len(actions))
			}
			if wake.IsZero() || wake.After(now.Add(time.Hour)) {
				wake = now.Add(time.Second)
			}
			now = wake
		}
		one, err := json.Marshal(fleet.State())
		if err != nil {
			return // a time that JSON does not have
		}
		var again State
		if err := json.Unmarshal(one, &again); err != nil {
			t.Errorf("%s: %v", one, err)
		}
	})
}
