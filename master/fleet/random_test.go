package fleet

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// world is what a fleet may come upon: processes that start, crash, hang, ask
// to be replaced; people who reload, scale and do so again. It checks the
// invariants at each action, in the order of the actions.
type world struct {
	t       *testing.T
	r       *rand.Rand
	cfg     Config
	f       *Fleet
	now     time.Time
	wake    time.Time
	alive   map[ID]*proc
	steered map[int]ID // by slot
	left    map[int]ID // steered to before the last Steer
	program []ID       // to which connections go: steered to, and not hung, if there are any
	lastID  ID
	gens    map[Gen]bool // prepared and not forgotten
	wanted  Gen
	refused time.Time // the last steering that failed
	stopped bool
	done    bool
	log     []string
}

const maxSlots = 4

type proc struct {
	slot     int
	gen      Gen
	ready    bool
	retiring bool // to quiet down, drain or end
	quiet    bool // was told to quiet down
	dead     bool // and has not exited
	hung     bool // abandoned: its sockets are taken from it
	unserved bool // was started in a slot that nobody served
}

func newWorld(t *testing.T, seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 1))
	cfg := testConfig()
	cfg.Slots = 1 + r.IntN(maxSlots)
	cfg.MaxFailures = 1 + r.IntN(3)
	if r.IntN(2) == 0 {
		cfg.Strategy = Slot
	}
	cfg.Surge = r.IntN(3)
	if r.IntN(4) == 0 {
		cfg.Canary = 5 * time.Second
	}
	if r.IntN(4) == 0 {
		cfg.ReadyDelay = 2 * time.Second
	}
	if r.IntN(4) == 0 {
		cfg.Watchdog = 3 * time.Second
	}
	if r.IntN(4) == 0 {
		cfg.DrainSpread = 20 * time.Second
	}
	if r.IntN(4) == 0 {
		cfg.MaxAge = 40 * time.Second
	}
	if r.IntN(8) == 0 {
		cfg.ReloadEvery = 60 * time.Second
	}
	cfg.NoOverlap = r.IntN(3) == 0
	return &world{t: t, r: r, cfg: cfg, f: New(cfg), now: time.Unix(1000, 0),
		alive: map[ID]*proc{}, steered: map[int]ID{}, gens: map[Gen]bool{}}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	tail := w.log[max(0, len(w.log)-40):]
	w.t.Fatalf("%s\nconfig %+v\nafter:\n%s", fmt.Sprintf(format, args...), w.cfg, strings.Join(tail, "\n"))
}

func (w *world) step(e Event) {
	before := make([]bool, w.cfg.Slots+4)
	for slot := range before {
		before[slot] = w.served(slot)
	}
	w.log = append(w.log, fmt.Sprintf("%v %T%+v", w.now.Sub(time.Unix(1000, 0)), e, e))
	actions, wake := w.f.Step(w.now, e)
	renew := false
	var answer Event
	for i, a := range actions {
		w.log = append(w.log, "    "+say(a))
		if _, steer := a.(Steer); steer {
			if i != len(actions)-1 {
				w.fail("actions after a Steer that is not answered")
			}
			if answer = Event(Steered{}); w.r.IntN(20) == 0 {
				answer, w.refused = SteerFailed{"chance"}, w.now
				continue
			}
		}
		w.act(a)
		_, is := a.(Renew)
		renew = renew || is
	}
	w.wake = wake
	if !wake.IsZero() && wake.Before(w.now) {
		w.fail("wants to be called in the past, %v", w.now.Sub(wake))
	}
	// Nothing but an exit, a smaller number or a stop leaves a served slot unserved.
	_, exited := e.(Exited)
	_, died := e.(Died)
	if !exited && !died && !w.stopped {
		for slot, served := range before {
			if served && slot < w.cfg.Slots && !w.served(slot) && !w.givesWay(slot) {
				w.fail("slot %d has gone unserved without an exit", slot)
			}
		}
	}
	if answer != nil {
		w.step(answer)
	}
	w.count()
	if renew {
		w.step(Reload{})
	}
}

// givesWay: with NoOverlap alone, a slot may go unserved without an exit, if its worker
// has to be replaced: from then, before it is told to drain, until the next one is ready.
// No more than Surge at once.
func (w *world) givesWay(slot int) bool {
	out := 0
	for s := range w.cfg.Slots {
		if !w.served(s) {
			out++
		}
	}
	id := w.left[slot]
	p := w.alive[id]
	return w.cfg.NoOverlap && p != nil && out <= max(1, w.cfg.Surge) && (p.gen != w.wanted || p.gen != w.f.due(slot) || w.leaving(id))
}

func (w *world) served(slot int) bool {
	p := w.alive[w.steered[slot]]
	return p != nil && !p.retiring && !p.dead
}

// count bounds what runs besides the workers that serve: starts in slots that
// are served, and workers that wait for the rest of their generation.
func (w *world) count() {
	starts, waiting := 0, 0
	for id, p := range w.alive {
		fw := w.f.worker(id)
		starting := !p.ready || fw != nil && fw.Phase == Starting // may only seem ready
		switch {
		case p.retiring, p.dead: // it does not run
		case p.hung: // it is killed when somebody accepts in its place; how often it is replaced until then, backoff bounds
		case starting && !p.unserved:
			starts++
		case !starting && w.steered[p.slot] != id:
			waiting++
		}
	}
	most := w.f.surge()
	if w.cfg.Strategy == All && w.cfg.Surge == 0 {
		most = maxSlots // there may have been more slots when they started
	}
	wait := maxSlots
	if w.now.Sub(w.refused) <= steerAgain {
		wait *= 2 // for the next try
	}
	if starts > most || waiting > wait {
		w.fail("%d starts at once, at most %d should be; %d workers wait", starts, most, waiting)
	}
}

func (w *world) act(a Action) {
	retiring := func(id ID) *proc {
		p := w.alive[id]
		if p == nil {
			w.fail("%s: no such worker", say(a))
		}
		if !w.stopped && (w.steered[p.slot] == id || slices.Contains(w.program, id)) && !p.hung && !p.dead {
			w.fail("%s while connections still come to it", say(a))
		}
		p.retiring = true
		return p
	}
	switch a := a.(type) {
	case Prepare:
		w.gens[a.Gen], w.wanted = true, a.Gen
	case Forget:
		if !w.gens[a.Gen] {
			w.fail("forgot generation %d twice", a.Gen)
		}
		delete(w.gens, a.Gen)
	case Spawn:
		if a.ID <= w.lastID || !w.gens[a.Gen] || w.stopped || a.Slot >= w.cfg.Slots {
			w.fail("%s: wrong", say(a))
		}
		for id, p := range w.alive {
			if p.slot == a.Slot && (w.cfg.NoOverlap || p.gen == a.Gen && !p.retiring && !w.leaving(id)) {
				w.fail("%s: the slot has worker %d", say(a), id)
			}
		}
		w.lastID = a.ID
		w.alive[a.ID] = &proc{slot: a.Slot, gen: a.Gen, unserved: !w.served(a.Slot)}
	case Steer:
		if len(a.IDs) == 0 && !w.cfg.NoOverlap {
			w.fail("steered to nobody")
		}
		w.left, w.steered = w.steered, map[int]ID{}
		for _, id := range a.IDs {
			p := w.alive[id]
			if p == nil || !p.ready || p.retiring || p.dead || p.slot >= w.cfg.Slots && w.accepting(a.IDs) > 1 || w.steered[p.slot] != 0 {
				w.fail("%s: worker %d cannot serve", say(a), id)
			}
			w.steered[p.slot] = id
		}
		w.aim()
	case Abandon:
		w.alive[a.ID].hung = true
		w.aim()
	case Quiesce:
		retiring(a.ID).quiet = true
	case Drain:
		retiring(a.ID)
	case Signal:
		retiring(a.ID)
	case Unlisten:
		w.stopped = true
	case Failed:
		w.wanted = a.Back
	case NotScaled:
		if a.Back < 1 || a.Back >= w.cfg.Slots {
			w.fail("%s: wrong", say(a))
		}
		w.cfg.Slots = a.Back
	case Done:
		if len(w.alive) > 0 || w.done {
			w.fail("done with %d workers left", len(w.alive))
		}
		w.done = true
	}
}

// accepting counts those that are alive and have not hung.
func (w *world) accepting(ids []ID) (n int) {
	for _, id := range ids {
		if p := w.alive[id]; p != nil && !p.hung && !p.dead {
			n++
		}
	}
	return n
}

// aim is what becomes of connections after a steering: without anybody who accepts they go
// where they went, or wait.
func (w *world) aim() {
	var to []ID
	for _, id := range w.steered {
		if w.accepting([]ID{id}) > 0 {
			to = append(to, id)
		}
	}
	if len(to) > 0 || w.cfg.NoOverlap { // see GivingWay
		w.program = to
	}
}

func (w *world) leaving(id ID) bool {
	x := w.f.worker(id)
	return x != nil && (x.Leaving || x.doubled)
}

func (w *world) any(ok func(ID, *proc) bool) ID {
	var ids []ID
	for id := ID(1); id <= w.lastID; id++ {
		if p := w.alive[id]; p != nil && ok(id, p) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	return ids[w.r.IntN(len(ids))]
}

func (w *world) exit(id ID) {
	delete(w.alive, id)
	w.step(Exited{ID: id, Reason: "exit"})
}

// random does one thing that may happen.
func (w *world) random() {
	everyone := func(ID, *proc) bool { return true }
	switch n := w.r.IntN(100); {
	case n < 3:
		w.step(Reload{})
	case n < 4:
		w.cfg.Slots = 1 + w.r.IntN(maxSlots)
		w.step(SetSlots{w.cfg.Slots})
	case n < 5:
		w.step(Broken{Gen: w.wanted, Reason: "broken"})
	case n < 40:
		if id := w.any(func(_ ID, p *proc) bool { return !p.ready && !p.retiring }); id != 0 {
			w.alive[id].ready = true
			w.step(Ready{ID: id, Seems: w.r.IntN(2) == 0})
		}
	case n < 43:
		if id := w.any(everyone); id != 0 {
			w.exit(id)
		}
	case n < 44:
		if id := w.any(everyone); id != 0 {
			w.alive[id].dead = true
			w.step(Died{id})
		}
	case n < 45:
		if id := w.any(everyone); id != 0 {
			w.step([]Event{Hung{ID: id}, Extend{id, time.Duration(w.r.IntN(5000)) * time.Millisecond}}[w.r.IntN(2)])
		}
	case n < 47:
		if id := w.any(everyone); id != 0 {
			w.step([]Event{Leave{id}, MarkRecycle{id, "recycleReason"}, Unfit{id, "unfit"}, Restart{id}}[w.r.IntN(4)])
		}
	case n < 60:
		if id := w.any(func(_ ID, p *proc) bool { return p.quiet }); id != 0 {
			w.step(Quiet{id})
		}
	case n < 72:
		if id := w.any(func(_ ID, p *proc) bool { return p.retiring || p.dead }); id != 0 {
			w.exit(id)
		}
	case n < 75:
		if id := w.any(everyone); id != 0 {
			w.step(Drained{id})
		}
	case n < 76: // doubled and lost events
		id := ID(w.r.IntN(int(w.lastID) + 2))
		if p := w.alive[id]; p == nil {
			w.step(Ready{ID: id, Seems: w.r.IntN(2) == 0})
			w.step(Quiet{id})
			w.step(Exited{ID: id})
			w.step(Ping{id})
			w.step(Hung{ID: id})
		}
	case n < 80:
		if id := w.any(func(_ ID, p *proc) bool { return p.ready }); id != 0 {
			w.step(Ping{id})
		}
	case n < 90:
		w.now = w.now.Add(time.Duration(w.r.IntN(2000)) * time.Millisecond)
		w.step(nil)
	default:
		if !w.wake.IsZero() {
			if w.wake.After(w.now) {
				w.now = w.wake
			}
			w.step(nil)
		}
	}
}

// settle lets the world be kind; then the fleet must come to rest, with one
// worker of one generation in each slot, and nothing else.
func (w *world) settle() {
	// A kind world pings. For it to come to rest it need not.
	w.f.cfg.Watchdog = 0
	w.f.cfg.MaxAge, w.f.cfg.ReloadEvery = 0, 0
	for id := range w.alive {
		w.step(Ping{id})
	}
	for round := 0; ; round++ {
		if round > 2000 {
			w.fail("no rest after %d kind rounds", round)
		}
		if id := w.any(func(_ ID, p *proc) bool { return p.retiring || p.dead }); id != 0 {
			w.exit(id)
		} else if id := w.any(func(_ ID, p *proc) bool { return !p.ready }); id != 0 {
			w.alive[id].ready = true
			w.step(Ready{ID: id, Seems: w.r.IntN(2) == 0})
		} else if !w.wake.IsZero() {
			if w.wake.After(w.now) {
				w.now = w.wake
			}
			w.step(nil)
		} else {
			break
		}
	}
	if w.stopped {
		if len(w.alive) > 0 || !w.done {
			w.fail("stopped, with %d workers left", len(w.alive))
		}
		return
	}
	if len(w.alive) != w.cfg.Slots {
		w.fail("at rest with %d workers for %d slots", len(w.alive), w.cfg.Slots)
	}
	for slot := range w.cfg.Slots {
		if p := w.alive[w.steered[slot]]; p == nil || p.gen != w.wanted || p.gen != w.f.Live() {
			w.fail("at rest, slot %d is served by %+v, wanted generation %d", slot, p, w.wanted)
		}
	}
	if len(w.gens) != 1 {
		w.fail("at rest, generations %v are known", w.gens)
	}
}

// TestRandom takes HANDOFF_STEPS random steps, a million by default.
func TestRandom(t *testing.T) {
	steps := 1_000_000
	if testing.Short() {
		steps = 200_000
	}
	if s := os.Getenv("HANDOFF_STEPS"); s != "" {
		steps, _ = strconv.Atoi(s)
	}
	taken := 0
	for seed := uint64(1); taken < steps; seed++ {
		w := newWorld(t, seed)
		w.step(Reload{})
		for range 400 {
			w.random()
			taken++
			if w.stopped {
				break
			}
		}
		if w.r.IntN(4) == 0 {
			w.step(Stop{Now: w.r.IntN(3) == 0})
		}
		w.settle()
	}
	t.Logf("%d steps", taken)
}
