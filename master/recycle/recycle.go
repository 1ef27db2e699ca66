// Package recycle finds workers to be replaced because they use too much memory or have
// served enough requests. It is pure: samples in, verdicts out. The fleet decides when
// each is replaced, one slot at a time (fleet.MarkRecycle).
package recycle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"handoff/internal/jitter"
)

// Config has the limits of a worker. The zero value has none.
type Config struct {
	MaxMemory   int64 // resident memory of its process group, in bytes; 0: no limit
	MaxRequests int   // served requests, if it reports them; 0: no limit
}

// Verdict is a worker to be replaced, and why.
type Verdict struct {
	Worker int
	Reason string
}

// Recycler compares samples with the limits. Tick requests a sample of the memory, which
// is taken elsewhere: it requires a walk through /proc.
type Recycler struct {
	cfg      Config
	sampling bool      // a sample is being taken
	next     time.Time // when the next one is due
}

// sampleEvery is the interval of samples of the workers' memory.
const sampleEvery = 5 * time.Second

// New returns a Recycler.
func New(cfg Config) *Recycler { return &Recycler{cfg: cfg} }

// Configure changes the limits, also for existing workers.
func (r *Recycler) Configure(cfg Config) { r.cfg = cfg }

// Deadline is when a sample is due next; zero: never, or one is being taken.
func (r *Recycler) Deadline() time.Time {
	if r.cfg.MaxMemory <= 0 || r.sampling {
		return time.Time{}
	}
	return r.next
}

// Tick reports whether a sample must be taken now. Pass it to Sampled.
func (r *Recycler) Tick(now time.Time) (sample bool) {
	if r.cfg.MaxMemory <= 0 || r.sampling || now.Before(r.next) {
		return false
	}
	r.sampling, r.next = true, now.Add(sampleEvery)
	return true
}

// Sampled compares the resident memory of workers, in bytes, with the limit. The verdicts
// are in the order of the workers.
func (r *Recycler) Sampled(resident map[int]int64) []Verdict {
	r.sampling = false
	if r.cfg.MaxMemory <= 0 {
		return nil
	}
	var verdicts []Verdict
	for _, id := range slices.Sorted(maps.Keys(resident)) {
		if n := resident[id]; n > r.cfg.MaxMemory {
			verdicts = append(verdicts, Verdict{id, fmt.Sprintf("%d"+tooLarge+" %d", n>>20, r.cfg.MaxMemory>>20)})
		}
	}
	return verdicts
}

// Served compares the number of requests that a worker reports with the limit.
func (r *Recycler) Served(worker, requests int) (Verdict, bool) {
	if r.cfg.MaxRequests <= 0 || requests < r.MaxRequests(worker) {
		return Verdict{}, false
	}
	return Verdict{worker, strconv.Itoa(requests) + served}, true
}

const (
	tooLarge = " MB resident, more than"
	served   = " requests served"
)

// Limit is which limit the reason of a replacement speaks of.
func Limit(reason string) string {
	switch {
	case strings.Contains(reason, tooLarge):
		return "max memory"
	case strings.HasSuffix(reason, served):
		return "max requests"
	}
	return "max age"
}

// MaxRequests is the number of requests after which a worker is replaced; 0: never. It is
// up to a tenth less than configured, so that workers that started together are not
// replaced together.
func (r *Recycler) MaxRequests(worker int) int {
	return r.cfg.MaxRequests - jitter.Of(r.cfg.MaxRequests/10, worker)
}
