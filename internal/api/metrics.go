package api

import (
	"maps"
	"slices"
	"time"
)

// Metrics is the data of /metrics.
type Metrics struct {
	Status   Status
	Counters Counters
}

// Counters count since the start of the service, across masters: they are in the record.
// Fields are added, never changed.
type Counters struct {
	Reloads   map[string]int `json:"reloads,omitempty"`  // by outcome: served, failed
	Restarts  map[string]int `json:"restarts,omitempty"` // of workers, by reason: crashed, asked, hung, stalled, recycled
	Steerings int            `json:"steerings,omitempty"`
	Rescued   int            `json:"rescued,omitempty"`  // connections handed from a parked socket to a live worker
	Stranded  int            `json:"stranded,omitempty"` // connections that no worker took
	Masters   int            `json:"masters,omitempty"`  // that have died
	Upgrades  int            `json:"upgrades,omitempty"`
	Stalls    int            `json:"stalls,omitempty"`
	LinesLost int            `json:"lines_lost,omitempty"` // of workers' output, that could not be written
	MaxQueue  int            `json:"queue_most,omitempty"` // the longest accept queue that was seen
	Ready     Histogram      `json:"ready"`                // seconds from start to ready
	Drain     Histogram      `json:"drain"`                // seconds from drain to the end
	Reload    Histogram      `json:"reload"`               // seconds from the order until it serves

	Kept  KeptConnections        `json:"kept,omitzero"`
	Slots map[int]map[string]int `json:"slot_restarts,omitempty"` // of each slot, by closer reason: recycled: max memory
}

// KeptConnections are idle connections of workers that drained.
type KeptConnections struct {
	Taken    int `json:"taken,omitempty"`    // held beside the program
	Answered int `json:"answered,omitempty"` // it has closed them, and the next request was answered by another worker
	Idle     int `json:"idle,omitempty"`     // likewise; no request came
	Closed   int `json:"closed,omitempty"`   // likewise; what came is not HTTP/1
	Left     int `json:"left,omitempty"`     // it has kept them
	Lost     int `json:"lost,omitempty"`     // with a relay process that was killed
}

// Clone returns a copy that shares nothing, for another goroutine.
func (c Counters) Clone() Counters {
	c.Reloads, c.Restarts = maps.Clone(c.Reloads), maps.Clone(c.Restarts)
	c.Slots = maps.Clone(c.Slots)
	for slot, reasons := range c.Slots {
		c.Slots[slot] = maps.Clone(reasons)
	}
	for _, h := range []*Histogram{&c.Ready, &c.Drain, &c.Reload} {
		h.Counts = slices.Clone(h.Counts)
	}
	return c
}

// CountReload counts a completed reload.
func (c *Counters) CountReload(outcome string) { count(&c.Reloads, outcome) }

// CountRestart counts a worker that was replaced; by is what of the reason, for its slot.
func (c *Counters) CountRestart(slot int, reason, by string) {
	count(&c.Restarts, reason)
	if c.Slots == nil {
		c.Slots = map[int]map[string]int{}
	}
	if by != "" {
		reason += ": " + by
	}
	of := c.Slots[slot]
	count(&of, reason)
	c.Slots[slot] = of
}

func count(m *map[string]int, key string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key]++
}

// Histogram counts durations up to each of [Bounds], and those above.
type Histogram struct {
	Counts []int   `json:"counts,omitempty"` // not cumulative; one more than the bounds; nil: none yet
	Sum    float64 `json:"sum,omitempty"`    // in seconds
}

// Bounds are the upper bounds of a Histogram's counts, in seconds.
func Bounds() []float64 { return []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120} }

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
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
