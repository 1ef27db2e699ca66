package fleet

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// A state goes through JSON whole: every field of the fleet and its parts is in
// it, so that one that is added later is not forgotten.
func TestStateIsWhole(t *testing.T) {
	for _, c := range []struct {
		of, state any
		without   int // fields that are of a step only, or of the configuration
	}{
		{Fleet{}, State{}, 8 /* cfg for Slots, done, now, wake, out, unprepared; order, steerAt, astray: the next master steers itself */},
		{Worker{}, WorkerState{}, 0},
		{slotState{}, SlotState{}, 0},
	} {
		if a, b := reflect.TypeOf(c.of).NumField()-c.without, reflect.TypeOf(c.state).NumField(); a != b {
			t.Errorf("%T has %d fields to keep, %T has %d", c.of, a, c.state, b)
		}
	}
}

// The master may be replaced at any instant of a random life: the fleet comes to
// rest all the same, and breaks no rule.
func TestRestoredAtAnyInstant(t *testing.T) {
	lives := 2000
	if testing.Short() {
		lives = 300
	}
	for seed := range uint64(lives) {
		w := newWorld(t, 1_000_000+seed)
		w.step(Reload{})
		for range 100 {
			w.random()
			if w.stopped {
				break
			}
			if w.r.IntN(20) == 0 {
				w.replace()
			}
		}
		if w.r.IntN(4) == 0 {
			w.step(Stop{})
			w.replace()
		}
		w.settle()
	}
}

// replace is the end of a master and the start of the next one.
func (w *world) replace() {
	b, err := json.Marshal(w.f.State())
	if err != nil {
		w.t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		w.t.Fatal(err)
	}
	w.log = append(w.log, "    the master is replaced")
	w.done = false // it may say so again
	var actions []Action
	w.f, actions = Restore(w.cfg, s, w.now)
	for _, a := range actions {
		w.log = append(w.log, "    "+say(a))
		if _, ok := a.(Quiesce); !ok { // known to be told already
			w.act(a)
		}
	}
	w.step(nil)
}

func TestRestoreAsksAgain(t *testing.T) {
	now := time.Unix(100, 0)
	f := New(testConfig())
	f.Step(now, Reload{})
	f.Step(now, Ready{ID: 1})
	f.Step(now, Ready{ID: 2})
	f.Step(now, Reload{})
	f.Step(now, Ready{ID: 3})
	g, actions := Restore(testConfig(), f.State(), now)
	if len(actions) != 1 || actions[0] != (Drain{ID: 4}) {
		t.Errorf("%v", actions)
	}
	// Its slot is filled at once, without a wait: it has not failed.
	actions, _ = g.Step(now, nil)
	if len(actions) != 1 || actions[0] != (Spawn{ID: 5, Slot: 1, Gen: 2}) {
		t.Errorf("%v", actions)
	}
}
