// Package recycle finds workers that are to be replaced although the code is right:
// too much memory, or enough requests served. It is pure: samples come in, verdicts go
// out. Whose turn it is, one slot at a time, the fleet decides (fleet.MarkRecycle).
package recycle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"handoff/internal/jitter"
)

// Config is what a worker may come to. The zero value allows everything.
type Config struct {
	MaxMemory   int64 // resident memory of its process group, in bytes; 0: any
	MaxRequests int   // that it serves, where it says so; 0: any number
}

// Verdict says that a worker is to be replaced, and why.
type Verdict struct {
	Worker int
	Reason string
}

// Recycler judges. A sample of the memory is asked for by Tick, and taken elsewhere:
// it needs a walk through /proc.
type Recycler struct {
	cfg      Config
	sampling bool      // a sample is being taken
	next     time.Time // when the next one is due
}

// sampleEvery is between two samples of the workers' memory.
const sampleEvery = 5 * time.Second

// New returns a Recycler.
func New(cfg Config) *Recycler { return &Recycler{cfg: cfg} }

// Configure changes the limits, for workers that are there as well.
func (r *Recycler) Configure(cfg Config) { r.cfg = cfg }

// Deadline is when a sample is due next; zero: never, or one is being taken.
func (r *Recycler) Deadline() time.Time {
	if r.cfg.MaxMemory <= 0 || r.sampling {
		return time.Time{}
	}
	return r.next
}

// Tick tells whether a sample is to be taken now. Sampled takes it.
func (r *Recycler) Tick(now time.Time) (sample bool) {
	if r.cfg.MaxMemory <= 0 || r.sampling || now.Before(r.next) {
		return false
	}
	r.sampling, r.next = true, now.Add(sampleEvery)
	return true
}

// Sampled judges the resident memory of workers, in bytes. Verdicts come in the order of
// the workers.
func (r *Recycler) Sampled(resident map[int]int64) []Verdict {
	r.sampling = false
	if r.cfg.MaxMemory <= 0 {
		return nil
	}
	var verdicts []Verdict
	for _, id := range slices.Sorted(maps.Keys(resident)) {
		if n := resident[id]; n > r.cfg.MaxMemory {
			verdicts = append(verdicts, Verdict{id, fmt.Sprintf("%d MB resident, more than %d", n>>20, r.cfg.MaxMemory>>20)})
		}
	}
	return verdicts
}

// Served judges the number of requests that a worker says it has served since its
// start.
func (r *Recycler) Served(worker, requests int) (Verdict, bool) {
	if r.cfg.MaxRequests <= 0 || requests < r.MaxRequests(worker) {
		return Verdict{}, false
	}
	return Verdict{worker, strconv.Itoa(requests) + " requests served"}, true
}

// MaxRequests is after how many requests a worker is replaced; 0: never. It is up to a
// tenth fewer than configured, so that workers that started together do not all go
// together.
func (r *Recycler) MaxRequests(worker int) int {
	return r.cfg.MaxRequests - jitter.Of(r.cfg.MaxRequests/10, worker)
}
