package master

import (
	"context"
	"time"

	"handoff/master/fleet"
)

// Counters count what has happened since the service was started, over masters:
// they are in the record. Fields are added, never changed.
type Counters struct {
	Reloads   map[string]int `json:"reloads,omitempty"`  // by outcome: served, failed
	Restarts  map[string]int `json:"restarts,omitempty"` // of workers, by reason: crashed, asked, hung, stalled, recycled
	Steerings int            `json:"steerings,omitempty"`
	Rescued   int            `json:"rescued,omitempty"`  // connections handed from a parked socket to a live worker
	Stranded  int            `json:"stranded,omitempty"` // connections that were given up
	Masters   int            `json:"masters,omitempty"`  // that have died
	Upgrades  int            `json:"upgrades,omitempty"`
	Stalls    int            `json:"stalls,omitempty"`
	QueueMost int            `json:"queue_most,omitempty"` // the longest accept queue that was seen
	Ready     Histogram      `json:"ready"`                // seconds from start to ready
	Drain     Histogram      `json:"drain"`                // seconds from drain to the end
	Reload    Histogram      `json:"reload"`               // seconds from the order until it serves
}

// Histogram counts durations up to each of [Bounds], and all.
type Histogram struct {
	Counts []int   `json:"counts,omitempty"` // not cumulative; one more than the bounds
	Sum    float64 `json:"sum,omitempty"`
}

// Bounds are the upper bounds of a Histogram's counts, in seconds.
func Bounds() []float64 { return []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120} }

func (h *Histogram) add(d time.Duration) {
	bounds := Bounds()
	if len(h.Counts) != len(bounds)+1 {
		h.Counts = make([]int, len(bounds)+1)
	}
	i := 0
	for i < len(bounds) && d.Seconds() > bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d.Seconds()
}

func count(m *map[string]int, key string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key]++
}

// Metrics is what there is to measure.
type Metrics struct {
	Status   Status
	Counters Counters
}

// Metrics asks what there is, and how often it has happened.
func (c Control) Metrics(ctx context.Context) (s Metrics, err error) {
	err = c.do(ctx, func(m *Master) error {
		s = Metrics{m.status(), m.counters}
		return nil
	})
	return s, err
}

// measureEnd counts the end of a worker.
func (m *Master) measureEnd(w *worker, phase fleet.Phase, leaving bool) {
	if !leaving && phase < fleet.Quieting {
		count(&m.counters.Restarts, "crashed")
	}
	if !w.drainedAt.IsZero() {
		m.counters.Drain.add(time.Since(w.drainedAt))
	}
}
