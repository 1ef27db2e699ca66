package master

import (
	"cmp"
	"slices"
	"time"

	"handoff/master/fleet"
)

// Status is what a master tells about itself. Its JSON is part of the control
// API: fields are added, never changed. It never has the environment in it.
type Status struct {
	Schema     int             `json:"schema"` // 1
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	PID        int             `json:"pid"`
	Started    time.Time       `json:"started_at"`
	State      string          `json:"state"` // starting, serving, degraded, reloading, stopping
	Generation int             `json:"generation"`
	Wanted     int             `json:"wanted_generation"` // another one than Generation in a reload
	Slots      int             `json:"slots"`
	Ready      int             `json:"ready"` // slots that are served
	LastError  string          `json:"last_error,omitempty"`
	Reload     *ReloadStatus   `json:"reload,omitempty"` // the last one
	Addresses  []AddressStatus `json:"addresses"`
	Workers    []WorkerStatus  `json:"workers"`
}

// AddressStatus is of one address.
type AddressStatus struct {
	Address string `json:"address"`
	Balance string `json:"balance"` // even, sticky, shared; hash where the kernel refuses to steer
	Queue   int    `json:"queue"`   // connections that nobody has accepted
}

// WorkerStatus is of one process.
type WorkerStatus struct {
	Slot       int        `json:"slot"`
	PID        int        `json:"pid"`
	Worker     int        `json:"worker"`
	Generation int        `json:"generation"`
	Phase      string     `json:"phase"`      // starting, serving, quieting, draining
	Steered    bool       `json:"in_service"` // new connections go to it
	Started    time.Time  `json:"started_at"`
	Ready      *time.Time `json:"ready_at,omitempty"`
	Queue      int        `json:"queue"`
	Restarts   int        `json:"restarts"`         // of its slot, by crashes
	Status     string     `json:"status,omitempty"` // what it says about itself
	Reloading  bool       `json:"reloading,omitempty"`
	Port       int        `json:"port,omitempty"`     // of its slot
	Requests   int        `json:"requests,omitempty"` // served, where it says so
	Stalled    bool       `json:"stalled,omitempty"`  // accepts nothing, while others do
	// Of its process group; filled in by who asks.
	RSS int64   `json:"rss_bytes"`
	CPU float64 `json:"cpu_seconds"`
}

func (m *Master) status() Status {
	s := Status{Schema: 1, Name: m.cfg.Name, Version: m.cfg.Version, PID: m.cfg.PID, Started: m.began,
		Generation: int(m.fleet.Live()), Wanted: int(m.fleet.Wanted()), Slots: m.fleet.Slots(), LastError: m.lastError,
		Addresses: []AddressStatus{}, Workers: []WorkerStatus{}}
	if m.reloaded.Generation > 0 {
		last := m.reloaded
		s.Reload = &last
	}
	queues := map[fleet.ID]int{}
	for _, a := range m.addrs.list {
		as := AddressStatus{Address: a.name, Balance: "shared"}
		if a.group != nil {
			if as.Balance = a.group.Balance().String(); !a.group.Steerable() && as.Balance != "shared" {
				as.Balance = "hash"
			}
			for _, socket := range a.group.Sockets() {
				n := a.group.Pending(socket)
				as.Queue += n
				m.counters.QueueMost = max(m.counters.QueueMost, n, a.group.QueueMost())
			}
			for _, h := range a.holds {
				queues[h.worker] += a.group.Pending(h.socket)
			}
		}
		s.Addresses = append(s.Addresses, as)
	}
	served := map[int]bool{}
	for _, fw := range m.fleet.Workers() {
		w := m.workers[fw.ID]
		if w == nil {
			continue
		}
		ws := WorkerStatus{Slot: fw.Slot, PID: w.pid, Worker: int(fw.ID), Generation: int(fw.Gen), Phase: fw.Phase.String(),
			Started: w.began, Queue: queues[fw.ID], Restarts: m.restarts[fw.Slot], Status: w.state.status, Reloading: w.state.reloading,
			Port: w.port, Requests: w.requests, Stalled: !w.stalledAt.IsZero()}
		for _, id := range m.addrs.seats {
			ws.Steered = ws.Steered || id == fw.ID
		}
		if at := fw.ReadyAt(); !at.IsZero() {
			ws.Ready = &at
		}
		served[fw.Slot] = served[fw.Slot] || ws.Steered && fw.Phase == fleet.Serving
		s.Workers = append(s.Workers, ws)
	}
	slices.SortFunc(s.Workers, func(a, b WorkerStatus) int { return cmp.Or(a.Slot-b.Slot, a.Worker-b.Worker) })
	for slot := range s.Slots {
		if served[slot] {
			s.Ready++
		}
	}
	switch {
	case m.fleet.Stopping():
		s.State = "stopping"
	case s.Generation == 0:
		s.State = "starting"
	case s.Wanted != s.Generation:
		s.State = "reloading"
	case s.Ready < s.Slots:
		s.State = "degraded"
	default:
		s.State = "serving"
	}
	return s
}
