// Package snapshot is what one master leaves to the next, besides descriptors: the
// record, its file, and when it is written.
//
// A record outlives the program that wrote it. Fields are added, with a zero value that
// means what was before, and are never changed or reused; testdata/record-N.json is one
// of every released version, and is never edited. An older binary ignores what it does
// not know. A record holds the workers' environment, and so is for keeper and master
// alone.
package snapshot

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"handoff/internal/api"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// Version is raised when an older master could not make sense of a record. A master
// reads its own version and those before.
const Version = 1

// Record is what the next master must know.
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
}

// Generation is what the workers of one are started from.
type Generation struct {
	Gen        fleet.Gen `json:"gen"`
	Path       Text      `json:"path"`
	Args       []Text    `json:"args"`
	Dir        Text      `json:"dir"`
	Env        []Text    `json:"env"`
	Error      string    `json:"error,omitempty"` // why it cannot be started
	StderrTail []string  `json:"words,omitempty"` // of the worker that failed last
	Drain      int       `json:"drain,omitempty"` // signal
}

// Worker is a process, and how far the talk with it has come.
type Worker struct {
	ID         fleet.ID  `json:"id"`
	Slot       int       `json:"slot"`
	Gen        fleet.Gen `json:"gen"`
	PID        int       `json:"pid"`
	Bound      int       `json:"binder,omitempty"`  // pid of the one process that has bound the address, if it is not the leader
	Several    bool      `json:"several,omitempty"` // processes have bound it, or the leader has
	Ports      int       `json:"ports,omitempty"`   // of the kernel's choice that it has got
	Began      time.Time `json:"began"`
	Status     string    `json:"status,omitempty"`
	Reloading  bool      `json:"reloading,omitempty"`
	Port       int       `json:"port,omitempty"` // of its slot
	Requests   int       `json:"requests,omitempty"`
	InFlight   bool      `json:"flying,omitempty"`     // a descriptor is on its way to it, not acknowledged
	Unreported bool      `json:"unreported,omitempty"` // it is steered to, and was not reported to serve
}

// Text is a string of any bytes: what is not UTF-8 is written as {"base64": "…"},
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

// Texts makes Texts of strings.
func Texts(list []string) []Text {
	all := make([]Text, len(list))
	for i, s := range list {
		all[i] = Text(s)
	}
	return all
}

// Strings makes strings of Texts.
func Strings(list []Text) []string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = string(t)
	}
	return all
}

// Parse reads a record, of this version or one before.
func Parse(b []byte) (r Record, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("cannot read the state of the previous master: %w", err)
	}
	if r.Version < 1 || r.Version > Version {
		return r, fmt.Errorf("cannot read the state of the previous master: it has version %d; this handoff supports up to %d", r.Version, Version)
	}
	return r, nil
}
