// Package snapshot has the record that a master leaves to the next one, besides
// descriptors: its types, its file, and when it is written.
//
// A record outlives the program that wrote it. Fields are added, with a zero value that
// means the previous behaviour, and are never changed or reused; testdata/record-N.json
// is a record of a released version, and is never edited. An older binary ignores fields
// that it does not know. A record contains the workers' environment, so only keeper and
// master have it.
package snapshot

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"handoff/internal/api"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/readiness"
	"handoff/master/takeover"
)

// Version is incremented when an older master could not understand a record. A master
// reads its own and earlier versions.
const Version = 1

// Record is what the next master needs.
type Record struct {
	Version     int          `json:"version"`
	Fleet       fleet.State  `json:"fleet"`
	Generations []Generation `json:"generations"`
	Workers     []Worker     `json:"workers"`
	listeners.State
	Seq       int               `json:"seq"` // of the last message to a worker
	Began     time.Time         `json:"began"`
	Restarts  map[int]int       `json:"restarts,omitempty"` // of slots, by crashes
	LastError string            `json:"last_error,omitempty"`
	Reload    bool              `json:"reload,omitempty"`  // follows the upgrade
	Asking    bool              `json:"asking,omitempty"`  // the before_reload hook is to be asked
	Upgrade   bool              `json:"upgrade,omitempty"` // precedes that reload, if the binary has changed
	Instance  string            `json:"instance,omitempty"`
	Counters  api.Counters      `json:"counters"`
	Reloaded  *api.ReloadStatus `json:"reloaded,omitempty"` // the last reload
	Reported  fleet.Gen         `json:"told,omitempty"`     // the last generation that was reported to serve
	Keeper    int               `json:"keeper,omitempty"`   // pid; 0 in one that was made of orphans
	// Descendants are what the workers have started, and what they have left.
	Descendants descendants.State `json:"descendants"`
	// Served is what the workers in service accept on, or did at their end, by slot.
	Served map[int][]readiness.Address `json:"served,omitempty"`
	// Takeover is of the relay process for kept connections; nil: none runs.
	Takeover *takeover.State `json:"takeover,omitempty"`
	// Epoch is that of the times, see [Clock]; 0: they are the wall clock's.
	Epoch int64 `json:"epoch,omitempty"`
}

// Generation is the program and environment of a generation's workers.
type Generation struct {
	Gen        fleet.Gen `json:"gen"`
	Path       Text      `json:"path"`
	Args       []Text    `json:"args"`
	Dir        Text      `json:"dir"`
	Env        []Text    `json:"env"`
	Error      string    `json:"error,omitempty"` // why it cannot be started
	StderrTail []string  `json:"words,omitempty"` // of the worker that failed last
	Drain      int       `json:"drain,omitempty"` // signal
	Ports      []int     `json:"ports,omitempty"` // of its slots
}

// Worker is a process, and the state of its session.
type Worker struct {
	ID         fleet.ID            `json:"id"`
	Slot       int                 `json:"slot"`
	Gen        fleet.Gen           `json:"gen"`
	PID        int                 `json:"pid"`
	Bound      int                 `json:"binder,omitempty"`   // pid of the only process that has bound an address, if it is not the leader
	Several    bool                `json:"several,omitempty"`  // processes have bound it, or the leader has
	Ports      int                 `json:"ports,omitempty"`    // of port 0, chosen so far
	Promises   []listeners.Promise `json:"promises,omitempty"` // binds whose listen has not come
	Began      time.Time           `json:"began"`
	Status     string              `json:"status,omitempty"`
	Reloading  bool                `json:"reloading,omitempty"`
	Port       int                 `json:"port,omitempty"` // of its slot
	Requests   int                 `json:"requests,omitempty"`
	InFlight   bool                `json:"flying,omitempty"`     // a descriptor is in flight to it, not acknowledged
	Unreported bool                `json:"unreported,omitempty"` // it is a target, and was not reported as serving
}

// Text is a string of any bytes. If it is not UTF-8 it is written as {"base64": "…"},
// since JSON would change it.
type Text string

type binaryText struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON writes it.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(binaryText{[]byte(t)})
}

// UnmarshalJSON reads it.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw binaryText
		err := json.Unmarshal(b, &raw)
		*t = Text(raw.Base64)
		return err
	}
	return json.Unmarshal(b, (*string)(t))
}

// Texts converts strings to Texts.
func Texts(list []string) []Text {
	all := make([]Text, len(list))
	for i, s := range list {
		all[i] = Text(s)
	}
	return all
}

// Strings converts Texts to strings.
func Strings(list []Text) []string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = string(t)
	}
	return all
}

// Parse reads a record of this or an earlier version.
func Parse(b []byte) (r Record, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("cannot read the state of the previous master: %w", err)
	}
	if r.Version < 1 || r.Version > Version {
		return r, fmt.Errorf("cannot read the state of the previous master: it has version %d; this handoff supports up to %d", r.Version, Version)
	}
	return r, nil
}
