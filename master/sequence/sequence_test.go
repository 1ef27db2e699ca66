package sequence

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/transcripttest"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/reload"
	"handoff/master/snapshot"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what happens now")

// desk is a World that writes down what is done. What it saves is the record of the next
// master.
type desk struct {
	out     *strings.Builder
	now     time.Time
	fleet   *fleet.Fleet
	targets []fleet.ID
	kernel  []fleet.ID // who is steered to
	record  snapshot.Record
	workers map[fleet.ID]bool // false: dead
	refuses int               // steerings
	calls   int               // until the master is killed; 0: it is not
	queue   []fleet.Event
}

type killed struct{}

func (d *desk) say(format string, args ...any) {
	fmt.Fprintf(d.out, "    "+format+"\n", args...)
	if d.calls > 0 {
		if d.calls--; d.calls == 0 {
			panic(killed{})
		}
	}
}

func (d *desk) Now() time.Time { return d.now }

func (d *desk) Save() {
	d.record = snapshot.Record{Fleet: d.fleet.State()}
	d.record.Targets = nil
	for _, id := range d.targets {
		d.record.Targets = append(d.record.Targets, listeners.Worker(id))
	}
	d.say("record: targets %v, %d workers", d.targets, len(d.record.Fleet.Workers))
}

func (d *desk) Do(a fleet.Action) {
	if s, ok := a.(fleet.Spawn); ok {
		d.workers[s.ID] = true
	}
	d.say("%s %v", strings.TrimPrefix(fmt.Sprintf("%T", a), "fleet."), a)
}

func (d *desk) Aim(ids []fleet.ID) func() {
	before := d.targets
	d.targets = slices.Clone(ids)
	d.say("aim at %v", ids)
	return func() { d.targets = before }
}

func (d *desk) Steer() error {
	to := slices.DeleteFunc(slices.Clone(d.targets), func(id fleet.ID) bool { return !d.workers[id] })
	if len(to) == 0 || slices.Equal(d.kernel, to) {
		return nil
	}
	if d.refuses > 0 {
		d.refuses--
		d.say("steering to %v is refused", to)
		return errors.New("refused")
	}
	d.kernel = to
	d.say("steer to %v", to)
	return nil
}

func (d *desk) Steered()                                {}
func (d *desk) Retry()                                  {}
func (d *desk) Step(e fleet.Event)                      { d.queue = append(d.queue, e) }
func (d *desk) CarryOut(reload.Action)                  {}
func (d *desk) Begin(f *fleet.Fleet, _ *reload.Machine) { d.fleet = f }
func (d *desk) Adopt() {
	d.targets = nil
	for _, id := range d.record.Targets {
		d.targets = append(d.targets, fleet.ID(id))
	}
}
func (d *desk) Has(id fleet.ID) bool  { _, ok := d.workers[id]; return ok }
func (d *desk) Dead(id fleet.ID) bool { return !d.workers[id] }
func (d *desk) Lost(id fleet.ID)      { d.say("lost: worker %d", id) }
func (d *desk) Discard(unrecorded func(fleet.ID) bool) {
	for _, id := range []fleet.ID{1, 2, 3, 4, 5, 6, 7, 8} {
		if _, ok := d.workers[id]; ok && !slices.ContainsFunc(d.record.Fleet.Workers, func(w fleet.WorkerState) bool { return w.ID == id }) {
			d.say("not recorded: worker %d", id)
			delete(d.workers, id)
		}
	}
}

// A transcript is a line an event, what is done for it indented below. Lines:
//
//	slots N
//	reload | scale N | ready ID | died ID | quiet ID | exit ID
//	gone ID            its process is dead, and nobody knows yet
//	after N            seconds, in which nothing is decided
//	refuses N          the next steerings
//	killed after N     of the next things that are done
//	restart            the next master takes over
func TestTranscripts(t *testing.T) { transcripttest.Run(t, 3, *update, replay) }

func replay(t *testing.T, text string) string {
	var out strings.Builder
	cfg := fleet.Config{ReadyTimeout: time.Minute, QuietTimeout: time.Minute, DrainTimeout: time.Minute, KillGrace: time.Minute, MaxFailures: 1}
	d := &desk{out: &out, now: time.Unix(1000, 0), workers: map[fleet.ID]bool{}}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line)
		w := strings.Fields(line)
		if len(w) == 0 || w[0] == "#" {
			continue
		}
		n := 0
		if len(w) > 1 {
			n, _ = strconv.Atoi(w[len(w)-1])
		}
		d.one(t, &cfg, w[0], n)
	}
	return out.String()
}

func (d *desk) one(t *testing.T, cfg *fleet.Config, what string, n int) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(killed); !ok {
				panic(e)
			}
			fmt.Fprintf(d.out, "    killed; connections go to %v\n", d.kernel)
		}
	}()
	id := fleet.ID(n)
	step := func(e fleet.Event) { Step(d, d.fleet, e) }
	switch what {
	case "slots":
		cfg.Slots = n
		d.fleet = fleet.New(*cfg)
	case "reload":
		step(fleet.Reload{})
	case "scale":
		step(fleet.SetSlots{N: n})
	case "ready":
		step(fleet.Ready{ID: id})
	case "died":
		d.workers[id] = false
		step(fleet.Died{ID: id})
	case "quiet":
		step(fleet.Quiet{ID: id})
	case "exit":
		delete(d.workers, id)
		step(fleet.Exited{ID: id, Reason: "exit"})
	case "gone":
		d.workers[id] = false
	case "after":
		d.now = d.now.Add(time.Duration(n) * time.Second)
	case "refuses":
		d.refuses = n
	case "killed":
		d.calls = n
	case "restart":
		d.calls = 0
		first := TakeOver(d, *cfg, false, "", d.record)
		first()
		queue := d.queue
		d.queue = nil
		for _, e := range append(queue, nil) {
			step(e)
		}
	default:
		t.Fatalf("unknown line %q", what)
	}
}
