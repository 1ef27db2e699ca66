// Package descendants ends what workers have started: whatever comes from a worker ends
// with it, in process groups and sessions of its own too, and daemons whose parent has
// gone.
//
//	lives ──its worker ends──► waits ──► terminated ──► killed ──► gone, or reported
//	                             │ (SIGTERM)   │ (SIGKILL)
//	                             └─ at once, but for those that serve connections, and for
//	                                a server's own process group in a drain
//
// They are found by their parents, from the worker down. A process whose parent has died
// is the keeper's child from then on (PR_SET_CHILD_SUBREAPER). It is recognised by having
// been seen before, by a process group or session that was, by the variables of handoff's
// that it was started with; where these cannot be read, or are overwritten
// (setproctitle), by having begun since the worker that ends; and where they are others
// (env -i), by the worker's seccomp filter, if there is one.
//
// Each is identified by its pid and the time of its start, and is signalled through a
// pidfd that was opened first and compared then: a pid that is in use again is somebody
// else's.
//
// A [Tracker] belongs to one goroutine; [Orphans] to any.
package descendants

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Worker identifies a worker; 0 is none. Identities are not reused.
type Worker int

// Config is what a tracker goes by.
type Config struct {
	// Keeper is the subreaper of the workers; 0: it is another process, whose children are
	// not considered.
	Keeper int
	// Instance identifies keeper and workers to each other, in their environment.
	Instance string
	// Died is called, from any goroutine, when one has ended whose worker had before:
	// [Tracker.Refresh] is to follow. No call comes after that of the last one.
	Died func()
}

// Process is a descendant.
type Process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // with the pid an identity, see linux.Stat
	Group   int    `json:"group"`
	Session int    `json:"session"`
	Name    string `json:"name"` // of its program, of 15 bytes at most; it may have anything in it
}

func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Name) }

func describe(s linux.Stat) Process {
	return Process{PID: s.PID, Start: s.Start, Group: s.Group, Session: s.Session, Name: s.Name}
}

// phase is how far the end of a worker's descendants has got.
type phase int

const (
	lives phase = iota // their worker does
	waits              // it has ended; they may go on for a while
	terminated
	killed
)

// endTimeout is how long a killed process may take to be gone, before it is reported.
const endTimeout = 5 * time.Second

// tree is what descends from one worker.
type tree struct {
	of      Worker
	leader  Process
	image   string // that it executes; "": not known
	members []*member
	seen    []int // process groups and sessions
	phase   phase
	at      time.Time     // when the phase is over; zero: never
	grace   time.Duration // from SIGTERM to SIGKILL
	gone    func()        // called when nothing is left; may be nil
	hard    bool          // they were killed while their worker lived
	ports   []uint16      // that the worker serves on
	group   *linux.Pidfd  // of the leader, by which its process group is signalled; nil: it had ended
}

// member is a process of a tree.
type member struct {
	Process
	parent int
	pidfd  *linux.Pidfd // once its worker has ended: a goroutine waits for its end
	err    error        // of the last signal
	// Once its worker has ended: it serves connections; it has a listening socket, or one
	// that handoff does not hold.
	serves, listens, blocks bool
	had                     []uint64 // connections, by inode, when its worker had ended
}

// Tracker knows the descendants of all workers.
type Tracker struct {
	cfg     Config
	trees   []*tree
	notices []Notice
	lookAt  time.Time // see Due; zero: not by time
	guessed []Process // attributed to one worker by a guess; they may be those of the next one that ends
}

// New returns a tracker of nothing.
func New(cfg Config) *Tracker { return &Tracker{cfg: cfg} }

// Started registers a worker that has started, or was adopted. Its pid is not reused before
// [Tracker.End].
func (t *Tracker) Started(of Worker, pid int) {
	if t.tree(of) != nil {
		return // restored
	}
	leader := Process{PID: pid, Group: pid}
	if s, err := linux.ReadStat(pid); err == nil {
		leader = describe(s)
		leader.Group = pid // it may not have come to that
	}
	tr := &tree{of: of, leader: leader}
	tr.group, _ = leader.open()
	tr.saw(pid)
	t.trees = append(t.trees, tr)
}

// PIDs are the processes of a worker, as far as they have been seen; its first one is one.
func (t *Tracker) PIDs(of Worker) (pids []int) {
	tr := t.tree(of)
	if tr == nil {
		return nil
	}
	pids = append(pids, tr.leader.PID)
	for _, m := range tr.members {
		pids = append(pids, m.PID)
	}
	return pids
}

func (t *Tracker) tree(of Worker) *tree {
	if i := slices.IndexFunc(t.trees, func(tr *tree) bool { return tr.of == of }); i >= 0 {
		return t.trees[i]
	}
	return nil
}

// Look takes note of the descendants that a worker has now.
func (t *Tracker) Look(of Worker) {
	if tr := t.tree(of); tr != nil {
		tr.look()
	}
}

// Terminate sends SIGTERM to every descendant of a worker that lives.
func (t *Tracker) Terminate(of Worker) {
	if tr := t.tree(of); tr != nil {
		tr.look()
		tr.signal(unix.SIGTERM, nil)
	}
}

// Kill kills a worker that lives, by leader, and then its descendants, which are looked up
// before.
func (t *Tracker) Kill(of Worker, leader func()) {
	tr := t.tree(of)
	if tr == nil {
		leader()
		return
	}
	tr.look()
	leader()
	tr.hard = true
	t.exterminate(tr)
}

// Left returns the descendants of a worker that has ended and was not reaped yet, with
// those among orphans. holdings are of these, and what descends from them. hidden: there
// may be some that only the seccomp filter identifies.
func (t *Tracker) Left(of Worker, orphans []Orphan, holdings []Holding, hidden bool) []Process {
	tr := t.tree(of)
	if tr == nil {
		return nil
	}
	tr.look()
	var guessed []Process
	for _, o := range orphans {
		if t.attribute(o, tr) {
			guessed = append(guessed, describe(o.Stat))
		}
	}
	if hidden && len(tr.members) == 0 {
		t.byFilter(orphans, tr)
	}
	tr.look()
	tr.learn(holdings)
	if len(guessed) > 1 {
		t.guessed = append(t.guessed, guessed[1:]...)
		t.guessed = t.guessed[max(0, len(t.guessed)-maxGuessed):]
	}
	if i := slices.IndexFunc(t.guessed, func(p Process) bool { return p.Start >= tr.leader.Start }); i >= 0 && len(tr.members) == 0 {
		left := t.guessed[i] // it ends with the one that it was taken for
		t.guessed = slices.Delete(t.guessed, i, i+1)
		return []Process{left}
	}
	return tr.processes()
}

// maxGuessed limits the guesses that are remembered.
const maxGuessed = 64

// Detached reports whether one of those that are left is in a session of its own.
func (t *Tracker) Detached(of Worker, left []Process) bool {
	tr := t.tree(of)
	return tr != nil && slices.ContainsFunc(left, func(p Process) bool { return p.Session != tr.leader.Session })
}

// End says how those end that a worker has left, which has been reaped.
type End struct {
	// By is until when the ones that the worker has forked, in its own process group, may
	// go on; zero: they are told at once. A server that has a process for each connection
	// drains by its children.
	By time.Time
	// Serving is until when those may go on that serve connections; not after By, if that
	// is not zero.
	Serving time.Time
	// Drained: the worker has drained.
	Drained bool
	// Signal is what others are sent meanwhile, whom nobody may have told to drain: those
	// of another group, or another program, which a shell has started.
	Signal unix.Signal
	// Grace is from SIGTERM to SIGKILL.
	Grace time.Duration
}

// End has those end that are left.
func (t *Tracker) End(of Worker, e End, now time.Time) {
	tr := t.tree(of)
	if tr == nil {
		return
	}
	tr.grace = e.Grace
	t.watch(tr)
	switch {
	case tr.hard:
		t.kill(tr, now, "their worker was killed")
	case now.Before(e.By):
		t.finish(tr, e.By, e.Signal, true)
	default:
		if now.Before(e.Serving) {
			if spared := t.spare(tr); spared != nil {
				t.finish(spared, e.Serving, e.Signal, e.Drained)
			}
		}
		t.terminate(tr, now, "their worker has exited")
	}
	t.lookAgain(now)
	t.forget()
}

// untold tells whether nobody may have told a process to drain: it is not one that the
// worker has forked, and nobody who is left passes a signal on to it.
func (tr *tree) untold(m *member) bool {
	forked := m.Group == tr.leader.Group && (tr.image == "" || linux.Image(m.PID) == tr.image)
	return !forked && !slices.ContainsFunc(tr.members, func(o *member) bool { return o.PID == m.parent })
}

// Hurry kills all whose worker has ended.
func (t *Tracker) Hurry(now time.Time) {
	for _, tr := range t.trees {
		if tr.phase == waits || tr.phase == terminated {
			t.kill(tr, now, "the service stops immediately")
		}
	}
	t.forget()
}

// WhenGone calls a function, from another method, as soon as none is left of a worker that has
// ended. It reports whether one is.
func (t *Tracker) WhenGone(of Worker, do func()) bool {
	tr := t.tree(of)
	if tr != nil {
		tr.gone = do
	}
	return tr != nil
}

// Idle tells whether none is left of a worker that has ended.
func (t *Tracker) Idle() bool {
	return !slices.ContainsFunc(t.trees, func(tr *tree) bool { return tr.phase != lives })
}

// Deadline is when [Tracker.Tick] and [Tracker.Due] are due; zero: not by time.
func (t *Tracker) Deadline() (next time.Time) {
	next = t.lookAt
	for _, tr := range t.trees {
		if !tr.at.IsZero() && (next.IsZero() || tr.at.Before(next)) {
			next = tr.at
		}
	}
	return next
}

// Tick ends the phases that are past their deadline.
func (t *Tracker) Tick(now time.Time) {
	for _, tr := range t.trees {
		if tr.at.IsZero() || now.Before(tr.at) {
			continue
		}
		tr.look()
		t.reparented(tr)
		switch t.watch(tr); tr.phase {
		case waits:
			t.terminate(tr, now, "drain timeout")
		case terminated:
			t.kill(tr, now, "did not exit on SIGTERM")
		case killed:
			t.giveUp(tr)
		}
	}
	t.forget()
}

// Refresh is to follow each [Config.Died].
func (t *Tracker) Refresh() {
	for _, tr := range t.trees {
		if tr.phase == lives {
			continue
		}
		tr.look()
		t.reparented(tr)
		news := t.watch(tr)
		switch tr.phase { // they were forked meanwhile
		case terminated:
			tr.signal(unix.SIGTERM, news)
		case killed:
			t.exterminate(tr)
		}
	}
	t.forget()
}

func (t *Tracker) terminate(tr *tree, now time.Time, reason string) {
	tr.phase, tr.at = terminated, now.Add(tr.grace)
	t.report(tr, unix.SIGTERM, reason, tr.signal(unix.SIGTERM, nil))
}

func (t *Tracker) kill(tr *tree, now time.Time, reason string) {
	tr.phase, tr.at = killed, now.Add(endTimeout)
	t.report(tr, unix.SIGKILL, reason, t.exterminate(tr))
}

func (t *Tracker) report(tr *tree, s unix.Signal, reason string, signalled []Process) {
	if len(signalled) > 0 {
		t.notices = append(t.notices, Notice{Of: tr.of, Signal: s, Processes: signalled, Reason: reason})
	}
}

// giveUp reports those that cannot be ended, and forgets them.
func (t *Tracker) giveUp(tr *tree) {
	for _, m := range tr.members {
		reason := "it does not exit on SIGKILL: it is blocked in the kernel"
		if errors.Is(m.err, unix.EPERM) {
			reason = "it runs as another user, which handoff may not signal"
		} else if m.err != nil {
			reason = m.err.Error()
		}
		t.notices = append(t.notices, Notice{Of: tr.of, Processes: []Process{m.Process}, Reason: reason})
		m.close()
	}
	tr.members = nil
}

// Notices are what is to be reported, each once.
func (t *Tracker) Notices() []Notice {
	all := t.notices
	t.notices = nil
	return all
}

// forget drops the trees of which nothing is left.
func (t *Tracker) forget() {
	var gone []func()
	t.trees = slices.DeleteFunc(t.trees, func(tr *tree) bool {
		over := tr.phase != lives && len(tr.members) == 0
		if over && tr.gone != nil {
			gone = append(gone, tr.gone)
		}
		if over && tr.group != nil {
			tr.group.Close()
		}
		return over
	})
	for _, f := range gone {
		f()
	}
}
