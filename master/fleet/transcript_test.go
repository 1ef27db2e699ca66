package fleet

import (
	"bytes"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/transcripttest"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what happens now")

// A transcript is a line an event, its answers indented below. `-update`
// rewrites the answers; the diff is the review. Lines:
//
//	config slots=2 strategy=slot ready=10s …   (first; the rest have test defaults)
//	tire ID reason | unfit ID reason
//	restart ID
//	reload | scale N | stop | stop now
//	lacks ID what
//	ready ID… | leave ID… | quiet ID… | drained ID… | exit ID [reason] | final ID [reason]
//	died ID… (exit follows) | ping ID… | hung ID… | extend ID DURATION
//	broken GEN reason
//	steering fails [reason] | steering works   (from now on)
//	astray             (a steering without an order has failed)
//	next               (what will happen, and in which slots nobody is)
//	after DURATION     (runs every deadline on the way)
//	# comment
func TestTranscripts(t *testing.T) { transcripttest.Run(t, 10, *update, replay) }

func testConfig() Config {
	return Config{Slots: 2, ReadyTimeout: 10 * time.Second, QuietTimeout: 3 * time.Second,
		DrainTimeout: 30 * time.Second, KillGrace: 5 * time.Second, DrainedGrace: 2 * time.Second,
		Respawn: time.Second, Backoff: 30 * time.Second, Stable: 30 * time.Second, MaxFailures: 3}
}

func replay(t *testing.T, text string) string {
	var (
		out   bytes.Buffer
		f     *Fleet
		clock = time.Unix(0, 0)
		start = clock
		wake  time.Time
	)
	refuses := "" // why steering fails
	step := func(e Event) {
		for again := true; again; {
			var actions []Action
			actions, wake = f.Step(clock, e)
			again = false
			for _, a := range actions {
				fmt.Fprintf(&out, "    %s\n", say(a))
				if _, again = a.(Steer); again {
					if e = Event(Steered{}); refuses != "" {
						e = SteerFailed{refuses}
						fmt.Fprintf(&out, "    fails: %s\n", refuses)
					}
				}
			}
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line)
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		ids := func(each func(ID) Event) {
			for _, s := range w[1:] {
				n, err := strconv.Atoi(s)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				step(each(ID(n)))
			}
		}
		rest := func(from int) string { return strings.Join(w[min(from, len(w)):], " ") }
		switch w[0] {
		case "config":
			f = New(parseConfig(t, w[1:]))
		case "reload":
			step(Reload{})
		case "scale":
			n, _ := strconv.Atoi(w[1])
			step(SetSlots{n})
		case "restart":
			ids(func(id ID) Event { return Restart{id} })
		case "stop":
			step(Stop{Now: rest(1) == "now"})
		case "ready":
			ids(func(id ID) Event { return Ready{ID: id} })
		case "seems":
			ids(func(id ID) Event { return Ready{ID: id, Seems: true} })
		case "mark", "unfit":
			n, _ := strconv.Atoi(w[1])
			if w[0] == "mark" {
				step(MarkRecycle{ID: ID(n), Reason: rest(2)})
			} else {
				step(Unfit{ID: ID(n), Reason: rest(2)})
			}
		case "lacks":
			n, _ := strconv.Atoi(w[1])
			step(Lacks{ID: ID(n), What: rest(2)})
		case "leave":
			ids(func(id ID) Event { return Leave{id} })
		case "quiet":
			ids(func(id ID) Event { return Quiet{id} })
		case "drained":
			ids(func(id ID) Event { return Drained{id} })
		case "died":
			ids(func(id ID) Event { return Died{id} })
		case "ping":
			ids(func(id ID) Event { return Ping{id} })
		case "hung":
			ids(func(id ID) Event { return Hung{ID: id, Reason: "hung"} })
		case "extend":
			n, _ := strconv.Atoi(w[1])
			d, err := time.ParseDuration(w[2])
			if err != nil {
				t.Fatal(err)
			}
			step(Extend{ID: ID(n), By: d})
		case "exit", "final":
			n, _ := strconv.Atoi(w[1])
			step(Exited{ID: ID(n), Reason: rest(2), Final: w[0] == "final"})
		case "steering":
			refuses = map[bool]string{true: rest(2) + " "}[w[1] == "fails"]
			refuses = strings.TrimSpace(refuses)
		case "next":
			for _, p := range f.Next(clock) {
				fmt.Fprintf(&out, "    %s\n", sayPlan(p, start))
			}
			for _, p := range f.Vacant(clock) {
				fmt.Fprintf(&out, "    vacant: %s\n", sayPlan(p, start))
			}
		case "astray":
			step(SteerFailed{})
		case "broken":
			n, _ := strconv.Atoi(w[1])
			step(Broken{Gen: Gen(n), Reason: rest(2)})
		case "after":
			d, err := time.ParseDuration(w[1])
			if err != nil {
				t.Fatal(err)
			}
			end := clock.Add(d)
			for !wake.IsZero() && !wake.After(end) {
				if wake.After(clock) {
					clock = wake
				}
				before, mark := out.Len(), wake
				step(nil)
				if out.Len() > before {
					// The time of what happened, before it.
					happened := out.String()[before:]
					out.Truncate(before)
					fmt.Fprintf(&out, "    at %v\n%s", clock.Sub(start), happened)
				}
				if wake.Equal(mark) {
					t.Fatalf("%q: it asks for %v again and again", line, wake)
				}
			}
			clock = end
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return out.String()
}

func sayPlan(p Plan, start time.Time) string {
	at := "in its turn"
	if !p.At.IsZero() {
		at = "at " + p.At.Sub(start).String()
	}
	return fmt.Sprintf("%s %s: slot %d, generation %d, %d failures %s", at, p.What, p.Slot, p.Gen, p.Failures, p.Reason)
}

func parseConfig(t *testing.T, words []string) Config {
	c := testConfig()
	durations := map[string]*time.Duration{"ready": &c.ReadyTimeout, "quiet": &c.QuietTimeout, "drain": &c.DrainTimeout,
		"respawn": &c.Respawn, "backoff": &c.Backoff, "stable": &c.Stable, "canary": &c.Canary, "delay": &c.ReadyDelay,
		"watchdog": &c.Watchdog, "spread": &c.DrainSpread, "age": &c.MaxAge, "every": &c.ReloadEvery}
	numbers := map[string]*int{"slots": &c.Slots, "surge": &c.Surge, "failures": &c.MaxFailures}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		var err error
		switch {
		case k == "strategy":
			c.Strategy = map[string]Strategy{"all": All, "slot": Slot}[v]
		case w == "patient":
			c.RetryFirst = true
		case w == "alone":
			c.NoOverlap = true
		case durations[k] != nil:
			*durations[k], err = time.ParseDuration(v)
		case numbers[k] != nil:
			*numbers[k], err = strconv.Atoi(v)
		default:
			err = fmt.Errorf("unknown key")
		}
		if err != nil {
			t.Fatalf("config %s: %v", w, err)
		}
	}
	return c
}

func say(a Action) string {
	switch a := a.(type) {
	case Prepare:
		return fmt.Sprintf("prepare generation %d", a.Gen)
	case Forget:
		return fmt.Sprintf("forget generation %d", a.Gen)
	case Spawn:
		return fmt.Sprintf("spawn %d: slot %d, generation %d", a.ID, a.Slot, a.Gen)
	case Steer:
		return fmt.Sprintf("steer to %v", a.IDs)
	case Quiesce:
		return fmt.Sprintf("quiesce %d", a.ID)
	case Drain:
		return fmt.Sprintf("drain %d", a.ID)
	case Signal:
		return fmt.Sprintf("%s %d: %s", map[bool]string{false: "TERM", true: "KILL"}[a.Kill], a.ID, a.Reason)
	case Abandon:
		return fmt.Sprintf("abandon %d: %s", a.ID, a.Reason)
	case Renew:
		return "renew"
	case Recycle:
		return fmt.Sprintf("recycle %d: %s", a.ID, a.Reason)
	case Unlisten:
		return "unlisten"
	case Live:
		return fmt.Sprintf("generation %d is live after %v", a.Gen, a.Took)
	case Failed:
		return fmt.Sprintf("generation %d failed: %s; back to %d", a.Gen, a.Reason, a.Back)
	case NotScaled:
		return fmt.Sprintf("not scaled to %d, %d again: slot %d: %s", a.Slots, a.Back, a.Slot, a.Reason)
	case NotRestarted:
		return fmt.Sprintf("slot %d not restarted: %s", a.Slot, a.Reason)
	case Done:
		return fmt.Sprintf("done, failed %v", a.Failed)
	}
	panic(fmt.Sprintf("unknown action %T", a))
}
