package api

import (
	"fmt"
	"strings"
	"time"
)

// Status is of GET /v1/status: one service, at one moment.
type Status struct {
	Schema     int             `json:"schema"` // 1
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	PID        int             `json:"pid"`
	Started    time.Time       `json:"started_at"`
	State      string          `json:"state"` // starting, serving, degraded, reloading, stopping
	Generation int             `json:"generation"`
	Wanted     int             `json:"wanted_generation"` // differs from generation during a reload
	Slots      int             `json:"slots"`
	Ready      int             `json:"ready"` // slots that are served
	LastError  string          `json:"last_error,omitempty"`
	Upgrades   int             `json:"upgrades,omitempty"`      // of handoff itself, since the start
	Reload     *ReloadStatus   `json:"reload,omitempty"`        // the last one
	Failed     *ChangeStatus   `json:"failed_change,omitempty"` // the last scale or restart that failed
	Output     []OutputStatus  `json:"output,omitempty"`        // where workers' output is lost
	LostLines  int             `json:"lost_lines,omitempty"`    // of workers' output, since the start
	Addresses  []AddressStatus `json:"addresses"`
	Workers    []WorkerStatus  `json:"workers"`
	Vacant     []SlotStatus    `json:"vacant,omitempty"` // slots without a worker that serves or starts
	Next       []NextStatus    `json:"next,omitempty"`   // what will happen if nothing else does, the soonest first
	// Kept are the kept connections of workers that drained, since the start; nil: none were
	// taken over.
	Kept *KeptConnections `json:"kept_connections,omitempty"`
	// Finishing are processes that finish connections after their worker has ended.
	Finishing []FinishingStatus `json:"finishing,omitempty"`
}

// The states of a service.
const (
	StateStarting  = "starting" // no generation has served yet
	StateServing   = "serving"  // every slot is served, and every address
	StateDegraded  = "degraded" // some slots are not, or nobody accepts on an address
	StateReloading = "reloading"
	StateStopping  = "stopping"
)

// Serves reports whether every slot is served, and every address, and the service is not
// stopping.
func (s Status) Serves() bool {
	return s.Ready >= s.Slots && s.Generation > 0 && s.State != StateStopping && len(s.Unserved()) == 0
}

// Unserved are the addresses on which no worker in service accepts any more.
func (s Status) Unserved() (names []string) {
	for _, a := range s.Addresses {
		if a.Unserved {
			names = append(names, a.Address)
		}
	}
	return names
}

// Serving says in words whether the generation in service keeps serving: in which of its
// slots, and on which addresses it does not.
func (s Status) Serving() string {
	text := "keeps serving"
	switch {
	case s.Ready == 0:
		text = "serves in no slot"
	case s.Ready < s.Slots:
		text += fmt.Sprintf(" in %d of %d slots", s.Ready, s.Slots)
	}
	if not := s.Unserved(); len(not) > 0 {
		text += "; nobody accepts on " + strings.Join(not, ", ")
	}
	return text
}

// ReloadStatus is the result of the last reload.
type ReloadStatus struct {
	Generation int       `json:"generation"`
	Outcome    string    `json:"outcome"` // running, served, failed
	Reason     string    `json:"reason,omitempty"`
	Stderr     []string  `json:"stderr,omitempty"` // last lines of the worker that failed
	Began      time.Time `json:"began_at"`
	Seconds    float64   `json:"seconds,omitempty"`
}

// The outcomes of a reload.
const (
	OutcomeRunning = "running" // none yet
	OutcomeServed  = "served"  // the new generation serves
	OutcomeFailed  = "failed"  // it failed, the one before continues to serve
)

// ChangeStatus is a scale or a restart that failed: everything is as it was before.
type ChangeStatus struct {
	Change  string    `json:"change"`            // scale, restart
	Workers int       `json:"workers,omitempty"` // that a scale wanted
	Slot    int       `json:"slot"`              // whose worker could not be started
	Reason  string    `json:"reason"`
	Stderr  []string  `json:"stderr,omitempty"` // last lines of that worker
	At      time.Time `json:"at"`
}

// The changes of a [ChangeStatus].
const (
	ChangeScale   = "scale"
	ChangeRestart = "restart"
)

// OutputStatus is a place that workers' output cannot be written to.
type OutputStatus struct {
	To    string    `json:"to"`         // the path of a file; stdout, stderr
	Error string    `json:"error"`      // why not
	Lost  int       `json:"lost_lines"` // since then
	Since time.Time `json:"since"`
}

// AddressStatus is one address.
type AddressStatus struct {
	Address string `json:"address"`
	Balance string `json:"balance"` // even, sticky, shared; hash where the kernel refuses to steer
	Queue   int    `json:"queue"`   // connections that no worker has accepted yet
	// Unserved: no worker in service accepts, and one did.
	Unserved bool `json:"unserved,omitempty"`
	// Waited is the longest time, in seconds, for which connections had to wait for the next
	// worker (--overlap none); a new one cannot have waited longer.
	Waited float64 `json:"waited,omitempty"`
}

// WorkerStatus is one worker.
type WorkerStatus struct {
	Slot       int        `json:"slot"`
	PID        int        `json:"pid"`
	Worker     int        `json:"worker"` // its number, which is never used again
	Generation int        `json:"generation"`
	Phase      string     `json:"phase"`      // starting, serving, quieting, draining
	Steered    bool       `json:"in_service"` // new connections go to it
	Started    time.Time  `json:"started_at"`
	Ready      *time.Time `json:"ready_at,omitempty"`
	Queue      int        `json:"queue"`            // connections that it has not accepted yet
	Restarts   int        `json:"restarts"`         // of its slot, after crashes
	Status     string     `json:"status,omitempty"` // what it says about itself
	Reloading  bool       `json:"reloading,omitempty"`
	Port       int        `json:"port,omitempty"`      // of its slot
	Requests   int        `json:"requests,omitempty"`  // served, if it reports them
	Stalled    bool       `json:"stalled,omitempty"`   // it accepts nothing, while others do
	Unhealthy  string     `json:"unhealthy,omitempty"` // why its health check fails (`--health`); absent: it passes, or is not checked
	// RestartReasons are of its slot: crashed, hung, stalled, asked, recycled: max memory,
	// recycled: max requests, recycled: max age.
	RestartReasons map[string]int `json:"restart_reasons,omitempty"`
	// Of its process group; the server of the API fills them in.
	RSS int64   `json:"rss_bytes"`
	CPU float64 `json:"cpu_seconds"`
}

// FinishingStatus is what a worker that has ended has left: processes of a server that has
// one for each connection.
type FinishingStatus struct {
	Worker    int       `json:"worker"`
	Processes int       `json:"processes"`
	Until     time.Time `json:"until"` // then they get SIGTERM
}

// SlotStatus is a slot without a worker that serves or starts.
type SlotStatus struct {
	Slot           int            `json:"slot"`
	State          string         `json:"state"` // backoff, not started
	Generation     int            `json:"generation"`
	Failures       int            `json:"failures,omitempty"`  // failed starts in a row
	At             *time.Time     `json:"starts_at,omitempty"` // of its next start
	RestartReasons map[string]int `json:"restart_reasons,omitempty"`
}

// The states of a slot without a worker.
const (
	SlotBackoff    = "backoff"     // its starts fail, and it waits for the next one
	SlotNotStarted = "not started" // no worker is started in it
)

// NextStatus is something that will happen. Of what happens to many workers for the same
// reason there is the first.
type NextStatus struct {
	Action     string     `json:"action"` // start, replace, give_up, recycle, reload, terminate, kill
	Slot       int        `json:"slot"`   // -1: of all
	Generation int        `json:"generation,omitempty"`
	At         *time.Time `json:"at,omitempty"`       // without it: when its turn comes
	Failures   int        `json:"failures,omitempty"` // of a start: failed ones in a row
	Reason     string     `json:"reason,omitempty"`
}

// The phases of a worker.
const (
	PhaseStarting = "starting"
	PhaseServing  = "serving"
	PhaseQuieting = "quieting" // nothing new comes, what waits is accepted
	PhaseDraining = "draining" // it finishes what it has
)
