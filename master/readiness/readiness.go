// Package readiness decides when a worker that claims to be ready is: when it accepts on
// every address that it is to serve. It is pure: what is so, it asks its [World].
//
//	claim ──lacks an address that the generation in service has──► waits, up to its ready timeout
//	  │                                                              │ accepts on it
//	  └──settling: other listens may follow──────────────────────────┴──► ready
//
// What a later worker is to serve is known from the generation in service. Of the first
// one nothing is known: the addresses that come soon after each other are waited for. Who
// replaces a worker that has crashed may lack an address after a second, since otherwise
// nobody serves.
package readiness

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// ID identifies a worker.
type ID int

// Worker is one that starts.
type Worker struct {
	ID   ID
	Slot int
	Gen  int
}

// Claim is what a claim to be ready goes by.
type Claim int

// The claims.
const (
	Listens Claim = iota // it listens on another address
	Own                  // on one that is not held, or not known: it cannot be checked
	Says                 // it says so, and is not expected to listen on more
)

// Service is what a worker in service accepts on.
type Service struct {
	Slot int
	At   []Address
}

// World is what the loop knows.
type World interface {
	// Accepts is what a worker accepts on: it has called listen, and its sockets are open.
	Accepts(ID) []Address
	// InService is what workers in service accept on; checked: their sockets are open.
	InService(checked bool) []Service
	// Live is the generation in service, 0 if there is none; Slots is the number of slots.
	Live() int
	Slots() int
	// MayDrop reports whether a reload may end an address.
	MayDrop(Address) bool
}

// Times, found with real programs (docs/internals/findings.md).
const (
	// settle is how long after a listen another one is waited for, where nothing is known,
	// settleMost is how long in all.
	settle, settleMost = 50 * time.Millisecond, 500 * time.Millisecond
	// confirm is how long a socket must be open, where it is known what to listen on: who
	// only tries whether an address is free closes it at once.
	confirm = 10 * time.Millisecond
	// patience is how long a worker lacks an address before that is said, and how often
	// is looked whether the address is still served.
	patience = time.Second
)

// claim is of one worker that starts.
type claim struct {
	Worker
	own, says bool
	first     time.Time // listen, or word
	last      time.Time
	again     time.Time // when to look again; zero: at its next claim
	lacks     string    // what it lacks, as told
	said      bool      // that was logged
	passed    bool
}

// Verdict is a decision on a worker.
type Verdict struct {
	Worker
	Ready bool
	Lacks string // why it is not, or what it lacks all the same, in words; "": nothing
	Say   bool   // the log is to have it
}

// Room has the claims, and what is known of the service.
type Room struct {
	served map[int][]Address // by slot: what its worker in service accepts on, or did at its end
	claims []*claim
}

// New returns a room without claims. served is the State of a previous one.
func New(served map[int][]Address) *Room {
	r := &Room{served: map[int][]Address{}}
	for slot, at := range served {
		r.served[slot] = at
	}
	return r
}

// State is what is known of the service, by slot, for the next master. A worker that
// starts is started again by that one.
func (r *Room) State() map[int][]Address { return r.served }

// Note takes what workers in service accept on now. Call it before one of them ends.
func (r *Room) Note(all []Service) {
	for _, s := range all {
		r.served[s.Slot] = s.At
	}
}

// Claimed: a worker that starts claims to be ready. [Room.Judge] decides.
func (r *Room) Claimed(now time.Time, w Worker, what Claim) {
	c := r.claim(w.ID)
	if c == nil {
		c = &claim{Worker: w}
		r.claims = append(r.claims, c)
	}
	if c.last, c.again = now, now; c.first.IsZero() {
		c.first = now
	}
	c.own = c.own || what == Own
	c.says = c.says || what == Says
}

// Recheck judges a worker once more that was judged ready, and does not serve yet. It
// reports whether it is not ready any more.
func (r *Room) Recheck(now time.Time, id ID, w World) (v Verdict, lost bool) {
	c := r.claim(id)
	if c == nil || !c.passed {
		return v, false
	}
	at := w.Accepts(id)
	if missing, _ := r.missing(c, at, w); len(missing) > 0 {
		v, _ = r.lacks(c, now, at, missing, w.Live())
	} else if c.valid(at) {
		return v, false
	} else {
		v = Verdict{Worker: c.Worker, Lacks: "has closed what it listened on"}
	}
	c.passed = false
	return v, true
}

// Ended: a worker starts no longer.
func (r *Room) Ended(id ID) {
	r.claims = slices.DeleteFunc(r.claims, func(c *claim) bool { return c.ID == id })
}

func (r *Room) claim(id ID) *claim {
	if i := slices.IndexFunc(r.claims, func(c *claim) bool { return c.ID == id }); i >= 0 {
		return r.claims[i]
	}
	return nil
}

// Deadline is when Judge must be called; zero: not by time.
func (r *Room) Deadline() (next time.Time) {
	for _, c := range r.claims {
		if !c.passed && !c.again.IsZero() && (next.IsZero() || c.again.Before(next)) {
			next = c.again
		}
	}
	return next
}

// Judge decides on the claims. Call it after each, and at the Deadline.
func (r *Room) Judge(now time.Time, w World) (verdicts []Verdict) {
	if !slices.ContainsFunc(r.claims, func(c *claim) bool { return !c.passed }) {
		return nil
	}
	inService := w.InService(false)
	r.Note(inService)
	for slot := range r.served {
		if slot >= w.Slots() {
			delete(r.served, slot)
		}
	}
	for _, c := range r.claims {
		if c.passed {
			continue
		}
		at := w.Accepts(c.ID)
		switch missing, known := r.missing(c, at, w); {
		case len(missing) > 0 && c.Gen == w.Live() && !c.served(inService) && c.valid(at) && !now.Before(c.first.Add(patience)):
			// What it has is better than nobody.
			v, _ := r.lacks(c, now, at, missing, w.Live())
			v.Ready, c.passed = true, true
			verdicts = append(verdicts, v)
		case len(missing) > 0:
			if v, news := r.lacks(c, now, at, missing, w.Live()); news {
				verdicts = append(verdicts, v)
			}
		case !c.valid(at):
			c.first, c.again = time.Time{}, time.Time{} // it has closed what it listened on: no claim
		case now.Before(c.settled(known)):
			c.again = c.settled(known)
		default:
			c.passed, c.again = true, time.Time{}
			verdicts = append(verdicts, Verdict{Worker: c.Worker, Ready: true})
		}
	}
	return verdicts
}

// valid reports whether there is something to the claim of a worker that accepts there.
func (c *claim) valid(at []Address) bool { return c.says || c.own || len(at) > 0 }

// served reports whether its slot has a worker in service.
func (c *claim) served(by []Service) bool {
	return slices.ContainsFunc(by, func(s Service) bool { return s.Slot == c.Slot })
}

// settled is when no other listen is waited for.
func (c *claim) settled(known bool) time.Time {
	switch {
	case c.says:
		return c.last
	case known:
		return c.last.Add(confirm)
	}
	if most := c.first.Add(settleMost); most.Before(c.last.Add(settle)) {
		return most
	}
	return c.last.Add(settle)
}

// lacks says what a worker lacks, and whether that is news.
func (r *Room) lacks(c *claim, now time.Time, at, missing []Address, live int) (v Verdict, news bool) {
	v = Verdict{Worker: c.Worker, Lacks: "accepts on " + Names(at) + ", not on " + Names(missing)}
	if len(at) == 0 {
		v.Lacks = "does not accept on " + Names(missing)
	}
	v.Lacks += ", which generation " + strconv.Itoa(live) + " serves (if that is intended:"
	for _, a := range missing {
		v.Lacks += " " + a.option()
	}
	v.Lacks += ")"
	due := c.first.Add(patience)
	if c.again = now.Add(patience); now.Before(due) {
		c.again = due
	} else {
		v.Say, c.said = !c.said, true
	}
	news = v.Say || v.Lacks != c.lacks
	c.lacks = v.Lacks
	return v, news
}

// missing returns the addresses that a worker is to accept on, and does not; known: it is
// known what it is to accept on.
func (r *Room) missing(c *claim, at []Address, w World) (missing []Address, known bool) {
	if w.Live() == 0 {
		return nil, false
	}
	missing, known = r.compare(c, at, w)
	if len(missing) > 0 { // unless those in service have closed it
		r.Note(w.InService(true))
		missing, known = r.compare(c, at, w)
	}
	return missing, known
}

// compare compares what a worker accepts on with what is served: what every slot has, it
// must have; what some have (a port for each slot, or what one of all does), it must have
// if its own slot has had it, unless another one of its generation has it.
func (r *Room) compare(c *claim, at []Address, w World) (missing []Address, known bool) {
	all, own := r.expected(c.Slot)
	known = len(all)+len(own) > 0
	for _, a := range all {
		if !covered(a, at) && !w.MayDrop(a) {
			missing = append(missing, a)
		}
	}
	for _, a := range own {
		if !covered(a, at) && !w.MayDrop(a) && !r.elsewhere(c, a, w) {
			missing = append(missing, a)
		}
	}
	return missing, known
}

// expected is what every slot serves, and what else a slot does.
func (r *Room) expected(slot int) (all, own []Address) {
	for _, a := range r.served[slot] {
		if r.everywhere(a) {
			all = append(all, a)
		} else {
			own = append(own, a)
		}
	}
	if _, served := r.served[slot]; served || len(r.served) == 0 {
		return all, own
	}
	for _, a := range r.served[slices.Min(slices.Collect(maps.Keys(r.served)))] {
		if r.everywhere(a) { // of a new slot: what all have in common
			all = append(all, a)
		}
	}
	return all, nil
}

func (r *Room) everywhere(a Address) bool {
	for _, at := range r.served {
		if !covered(a, at) {
			return false
		}
	}
	return true
}

// elsewhere reports whether another worker of a claim's generation accepts on an address.
func (r *Room) elsewhere(c *claim, a Address, w World) bool {
	for _, o := range r.claims {
		if o != c && o.Gen == c.Gen && covered(a, w.Accepts(o.ID)) {
			return true
		}
	}
	if c.Gen != w.Live() {
		return false
	}
	for slot, at := range r.served {
		if slot != c.Slot && covered(a, at) {
			return true
		}
	}
	return false
}
