package master

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/keeper/fdstore"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/reload"
)

// recordVersion is raised when an older master could not make sense of a record.
// A master reads its own version and those before.
const recordVersion = 1

// record is what the next master must know besides descriptors. It outlives the
// program: fields are added, with a zero value that means what was before, and
// never changed or reused; testdata/record-*.json is one of every released
// version. It holds the workers' environment, and so is for keeper and master
// alone.
type record struct {
	Version int            `json:"version"`
	Fleet   fleet.State    `json:"fleet"`
	Gens    []genRecord    `json:"generations"`
	Workers []workerRecord `json:"workers"`
	listeners.State
	Seq       int               `json:"seq"`
	Began     time.Time         `json:"began"`
	Restarts  map[int]int       `json:"restarts,omitempty"`
	LastError string            `json:"last_error,omitempty"`
	Reload    bool              `json:"reload,omitempty"` // is wanted, once the next master is there
	Asking    bool              `json:"asking,omitempty"` // whether a reload may be; with Upgrade before it
	Upgrade   bool              `json:"upgrade,omitempty"`
	Instance  string            `json:"instance,omitempty"`
	Counters  api.Counters      `json:"counters"`
	Reloaded  *api.ReloadStatus `json:"reloaded,omitempty"` // the last one
	Told      fleet.Gen         `json:"told,omitempty"`     // the last generation of which it was said that it serves
	Keeper    int               `json:"keeper,omitempty"`   // its pid
}

type genRecord struct {
	Gen   fleet.Gen `json:"gen"`
	Path  text      `json:"path"`
	Args  []text    `json:"args"`
	Dir   text      `json:"dir"`
	Env   []text    `json:"env"`
	Error string    `json:"error,omitempty"`
	Words []string  `json:"words,omitempty"`
	Drain int       `json:"drain,omitempty"` // signal
}

// text is a string of any bytes: what is not UTF-8 is written as {"base64": "…"},
// since JSON would change it.
type text string

type binaryText struct {
	Base64 []byte `json:"base64"`
}

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(binaryText{[]byte(t)})
}

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw binaryText
		err := json.Unmarshal(b, &raw)
		*t = text(raw.Base64)
		return err
	}
	return json.Unmarshal(b, (*string)(t))
}

func texts(list []string) []text {
	all := make([]text, len(list))
	for i, s := range list {
		all[i] = text(s)
	}
	return all
}

func plainStrings(list []text) []string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = string(t)
	}
	return all
}

type workerRecord struct {
	ID        fleet.ID  `json:"id"`
	Slot      int       `json:"slot"`
	Gen       fleet.Gen `json:"gen"`
	PID       int       `json:"pid"`
	Binder    int       `json:"binder,omitempty"`
	Several   bool      `json:"several,omitempty"`
	Ports     int       `json:"ports,omitempty"`
	Began     time.Time `json:"began"`
	Status    string    `json:"status,omitempty"`
	Reloading bool      `json:"reloading,omitempty"`
	Port      int       `json:"port,omitempty"`
	Requests  int       `json:"requests,omitempty"`
	Flying    bool      `json:"flying,omitempty"` // a descriptor is under way to it, not acknowledged
}

// record returns what the next master must know.
func (m *Master) record() record {
	r := record{Version: recordVersion, Fleet: m.fleet.State(), State: m.listeners.State(), Seq: m.seq,
		Began: m.began, Restarts: m.restarts, LastError: m.lastError, Reload: m.reloads.Pending.Reload,
		Asking: m.reloads.Phase == reload.Asking || m.reloads.Pending.Ask, Upgrade: m.reloads.Pending.Upgrade, Reloaded: m.reloadStatus(),
		Instance: m.cfg.Instance, Keeper: m.cfg.PID, Told: m.told, Counters: m.counters}
	for _, gen := range r.Fleet.Known {
		g := m.gens[gen]
		if g == nil {
			continue
		}
		gr := genRecord{Gen: gen, Words: g.words, Drain: int(g.drain)}
		if g.err != nil {
			gr.Error = g.err.Error()
		} else {
			gr.Path, gr.Args, gr.Dir, gr.Env = text(g.launch.path), texts(g.launch.args), text(g.launch.dir), texts(g.launch.env)
		}
		r.Gens = append(r.Gens, gr)
	}
	for _, fw := range r.Fleet.Workers {
		w := m.workers[fw.ID]
		if w == nil {
			continue
		}
		wr := workerRecord{ID: w.id, Slot: w.slot, Gen: w.gen, PID: w.pid, Several: w.severalBind, Ports: w.ports, Began: w.began,
			Status: w.state.Status, Reloading: w.state.Reloading, Port: w.port, Requests: w.requests, Flying: w.channel != nil && w.channel.flying != nil}
		if w.binder != nil {
			wr.Binder = w.binder.pid
		}
		r.Workers = append(r.Workers, wr)
	}
	return r
}

// save hands the record to the keeper, if it has changed. It is written whole to
// a file of its own before the keeper takes it in the place of the last one, so
// that a master that is killed at any instant leaves a whole one.
func (m *Master) save() {
	if m.keep == nil {
		return
	}
	began := time.Now()
	defer func() { m.savedAt, m.saveTook = time.Now(), time.Since(began) }()
	b, err := json.Marshal(m.record())
	if err != nil {
		m.trouble(fmt.Errorf("cannot write the state: %w", err))
		return
	}
	if bytes.Equal(b, m.saved) && len(m.took) == 0 {
		return
	}
	f, err := memfd(b)
	if err != nil {
		m.trouble(err)
		return
	}
	defer f.Close()
	if m.keep.StoreState(int(f.Fd()), m.took) == nil {
		m.saved, m.took = b, nil
	}
}

// stateFile is the record in a file, which the caller closes.
func (m *Master) stateFile() (*os.File, error) {
	b, err := json.Marshal(m.record())
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return memfd(b)
}

func memfd(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("handoff-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	f := os.NewFile(uintptr(fd), fdstore.State)
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return f, nil
}

// recordMost bounds a record, in bytes.
const recordMost = 64 << 20

// parseRecord reads a record.
func parseRecord(b []byte) (r record, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("cannot read the state of the master before: %w", err)
	}
	if r.Version < 1 || r.Version > recordVersion {
		return r, fmt.Errorf("cannot read the state of the master before: it has version %d, this one knows up to %d", r.Version, recordVersion)
	}
	return r, nil
}

// CheckRecord tells whether this binary can take over from a master with that
// state.
func CheckRecord(b []byte) error {
	_, err := parseRecord(b)
	return err
}

func readRecord(fd int) (record, error) {
	f := os.NewFile(uintptr(fd), fdstore.State)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, recordMost), recordMost))
	if err != nil {
		return record{}, fmt.Errorf("cannot read the state of the master before: %w", err)
	}
	return parseRecord(b)
}
