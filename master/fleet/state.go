package fleet

import (
	"slices"
	"time"
)

// State is a fleet as plain data, for the next master. It outlives the program: fields
// are added, with a zero value that means the previous behaviour, and never changed.
// Times are of the wall clock.
type State struct {
	Slots      int           `json:"slots"`
	Workers    []WorkerState `json:"workers,omitempty"`
	SlotStates []SlotState   `json:"seats,omitempty"`
	LastID     ID            `json:"last_id"`
	LastGen    Gen           `json:"last_gen"`
	Live       Gen           `json:"live"`
	Wanted     Gen           `json:"wanted"`
	Known      []Gen         `json:"known,omitempty"`
	Began      time.Time     `json:"began"`
	Steered    []ID          `json:"steered,omitempty"`
	Proven     bool          `json:"proven,omitempty"`
	Frozen     bool          `json:"frozen,omitempty"`
	Stopping   bool          `json:"stopping,omitempty"`
	Failed     bool          `json:"failed,omitempty"`
	Grown      int           `json:"grown,omitempty"`
}

// WorkerState is a Worker.
type WorkerState struct {
	ID            ID        `json:"id"`
	Slot          int       `json:"slot"`
	Gen           Gen       `json:"gen"`
	Phase         Phase     `json:"phase"`
	InService     bool      `json:"in_service,omitempty"`
	Leaving       bool      `json:"leaving,omitempty"`
	Extra         bool      `json:"extra,omitempty"`
	Hung          bool      `json:"hung,omitempty"`
	Doubled       bool      `json:"doubled,omitempty"`
	Dead          bool      `json:"dead,omitempty"`
	Seems         bool      `json:"seems,omitempty"`
	Late          time.Time `json:"late,omitzero"`
	Lacks         string    `json:"lacks,omitempty"`
	RecycleReason string    `json:"tired,omitempty"`
	Asked         int       `json:"asked,omitempty"`
	Drained       bool      `json:"drained,omitempty"`
	Started       time.Time `json:"started"`
	ReadyAt       time.Time `json:"ready_at"`
	PingBy        time.Time `json:"ping_by"`
	Turn          time.Time `json:"turn"`
	Deadline      time.Time `json:"deadline"`
	Latest        time.Time `json:"latest,omitzero"`
}

// SlotState is a slotState.
type SlotState struct {
	Slot      int       `json:"slot"`
	Gen       Gen       `json:"gen"`
	Failures  int       `json:"failures"`
	NotBefore time.Time `json:"not_before"`
	Trial     bool      `json:"trial,omitempty"`
}

// State returns the fleet as data.
func (f *Fleet) State() State {
	s := State{Slots: f.cfg.Slots, LastID: f.lastID, LastGen: f.lastGen, Live: f.live, Wanted: f.wanted,
		Known: slices.Clone(f.known), Began: f.began, Steered: slices.Clone(f.steered), Proven: f.proven, Frozen: f.frozen,
		Stopping: f.stopping, Failed: f.failed, Grown: f.grown}
	for _, w := range f.workers {
		s.Workers = append(s.Workers, WorkerState{ID: w.ID, Slot: w.Slot, Gen: w.Gen, Phase: w.Phase, InService: w.InService,
			Leaving: w.Leaving, Extra: w.extra, Hung: w.hung, Doubled: w.doubled, Dead: w.dead, Seems: w.seems, Late: w.late, Lacks: w.lacks, RecycleReason: w.recycleReason, Asked: int(w.asked), Drained: w.drained, Started: w.started,
			ReadyAt: w.readyAt, PingBy: w.pingBy, Turn: w.turn, Deadline: w.deadline, Latest: w.latest})
	}
	for _, slot := range f.slotStates {
		s.SlotStates = append(s.SlotStates, SlotState{Slot: slot.slot, Gen: slot.gen, Failures: slot.failures, NotBefore: slot.notBefore, Trial: slot.trial})
	}
	return s
}

// Restore returns the fleet of an earlier master. The number of slots is that of the
// state, not of cfg.
//
// A worker that was starting is drained, and another is started, since its messages may be
// lost: it may have connections already, of the socket of a dead worker. One that was
// quieting is quiesced again by the actions. The watchdog of serving workers is
// restarted.
func Restore(cfg Config, s State, now time.Time) (*Fleet, []Action) {
	cfg.Slots = max(s.Slots, 1)
	f := &Fleet{cfg: cfg, now: now, lastID: s.LastID, lastGen: s.LastGen, live: s.Live, wanted: s.Wanted, known: slices.Clone(s.Known),
		began: s.Began, steered: slices.Clone(s.Steered), proven: s.Proven, frozen: s.Frozen, stopping: s.Stopping, failed: s.Failed, grown: s.Grown}
	for _, ws := range s.Workers {
		f.workers = append(f.workers, &Worker{ID: ws.ID, Slot: ws.Slot, Gen: ws.Gen, Phase: ws.Phase, InService: ws.InService,
			Leaving: ws.Leaving, extra: ws.Extra, hung: ws.Hung, doubled: ws.Doubled, dead: ws.Dead, seems: ws.Seems, late: ws.Late, lacks: ws.Lacks, recycleReason: ws.RecycleReason, asked: asked(ws.Asked), drained: ws.Drained, started: ws.Started,
			readyAt: ws.ReadyAt, pingBy: ws.PingBy, turn: ws.Turn, deadline: ws.Deadline, latest: ws.Latest})
	}
	for _, ss := range s.SlotStates {
		f.slotStates = append(f.slotStates, &slotState{slot: ss.Slot, gen: ss.Gen, failures: ss.Failures, notBefore: ss.NotBefore, trial: ss.Trial})
	}
	for _, w := range f.workers {
		switch w.Phase {
		case Starting:
			if !w.dead {
				f.dismiss(w)
			}
		case Serving:
			if !w.hung && !w.dead {
				f.pinged(w)
			}
		case Quieting:
			w.deadline = now.Add(cfg.QuietTimeout)
			f.do(Quiesce{w.ID})
		case Draining:
			if w.asked == askedKill {
				w.asked = askedTerm // the order may not have been carried out
				f.kill(w, "killed again")
			}
		}
	}
	out := f.out
	f.out = nil
	return f, out
}
