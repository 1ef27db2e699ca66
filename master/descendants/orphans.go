package descendants

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Orphan is a process whose parent has died, and which may descend from a worker.
type Orphan struct {
	Stat    linux.Stat
	Of      Worker // the worker in its environment; 0: none
	Unknown bool   // its environment cannot be read, or is overwritten
	Foreign bool   // by its environment, a hook or another handoff has started it
	// Filtered: it has more seccomp filters than the keeper. Under the bind contract each
	// worker gets one, and all that descends from it.
	Filtered bool
}

// Variables in a worker's environment that identify it.
const (
	instanceVariable = "HANDOFF_INSTANCE"
	workerVariable   = "HANDOFF_WORKER"
)

// Orphans returns a function, for any goroutine, that finds the keeper's children; if the
// keeper is not known, all processes. It takes at most timeout: a process can delay the
// reading of its environment.
func (t *Tracker) Orphans(timeout time.Duration) func() []Orphan {
	keeper, instance := t.cfg.Keeper, t.cfg.Instance
	if instance == "" {
		return func() []Orphan { return nil }
	}
	return func() []Orphan { return orphans(keeper, instance, timeout) }
}

func orphans(keeper int, instance string, timeout time.Duration) []Orphan {
	pids := linux.PIDs
	if keeper != 0 {
		pids = func() []int { return linux.Children(keeper) }
	}
	var all []Orphan
	for _, pid := range pids() {
		if s, err := linux.ReadStat(pid); err == nil && !dead(s) && pid != os.Getpid() {
			all = append(all, Orphan{Stat: s})
		}
	}
	type read struct {
		i        int
		env      []string
		filtered bool
	}
	found := make(chan read, len(all)) // never closed; it has room for every answer
	filters := -1
	if n, err := linux.SeccompFilters(keeper); err == nil && keeper != 0 {
		filters = n
	}
	for i, o := range all {
		go func() { // ends when the process lets itself be read, or ends
			n, err := linux.SeccompFilters(o.Stat.PID)
			found <- read{i, linux.Environ(o.Stat.PID), err == nil && filters >= 0 && n > filters}
		}()
	}
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	for range all {
		select {
		case r := <-found:
			all[r.i].Filtered = r.filtered
			all[r.i].learn(r.env, instance, keeper)
		case <-limit.C:
			return all
		}
	}
	return all
}

// learn evaluates the environment that a process was started with.
func (o *Orphan) learn(env []string, instance string, keeper int) {
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.Contains(kv, "=") }) {
		o.Unknown = keeper != 0 // a title is written over it, or it is another user's
		return
	}
	if linux.Lookup(env, "HANDOFF_KEEPER") != "" || linux.Lookup(env, "HANDOFF_EVENT") != "" {
		o.Foreign = true // a master, of a handoff that may itself run under one; or of a hook
		return
	}
	if n, err := strconv.Atoi(linux.Lookup(env, workerVariable)); err == nil && n > 0 && linux.Lookup(env, instanceVariable) == instance {
		o.Of = Worker(n)
	}
}

// Found adds a process that the kernel has identified as a descendant of a worker. If the
// worker has ended, the process is ended too.
func (t *Tracker) Found(of Worker, pid int, grace time.Duration, now time.Time) {
	s, err := linux.ReadStat(pid)
	if err != nil || dead(s) || t.known(s) {
		return
	}
	tr := t.tree(of)
	if tr == nil {
		tr = &tree{of: of, phase: waits, at: now, grace: grace}
		t.trees = append(t.trees, tr)
	}
	tr.add(s)
	tr.look()
	if tr.phase == lives {
		return
	}
	news := t.watch(tr)
	switch tr.phase {
	case waits:
		if !now.Before(tr.at) {
			t.terminate(tr, now, "their worker has exited")
		}
	case terminated:
		tr.signal(unix.SIGTERM, news)
	case killed:
		tr.signal(unix.SIGKILL, news)
	}
}

// attribute adds a process to the tree of its worker; ends is the tree of the worker that
// has just ended. It reports whether that was a guess.
func (t *Tracker) attribute(o Orphan, ends *tree) (guessed bool) {
	if t.known(o.Stat) {
		return false
	}
	to := t.bySight(o.Stat, ends)
	switch {
	case to != nil:
	case o.Of != 0:
		if to = t.tree(o.Of); to == nil {
			to = ends
		}
	case o.Unknown && o.Stat.Start >= ends.leader.Start:
		to, guessed = ends, true
	default:
		return false
	}
	to.add(o.Stat)
	return guessed
}

// byFilter finds descendants of a worker that nothing else identifies: orphans with a
// worker's seccomp filter that began after this worker. If other workers live, it takes
// only a single one: of several, each may be another worker's.
func (t *Tracker) byFilter(orphans []Orphan, ends *tree) {
	found := slices.DeleteFunc(slices.Clone(orphans), func(o Orphan) bool {
		return !o.Filtered || o.Of != 0 || o.Unknown || o.Foreign || o.Stat.Parent != t.cfg.Keeper || o.Stat.Start < ends.leader.Start || t.known(o.Stat)
	})
	others := slices.ContainsFunc(t.trees, func(tr *tree) bool { return tr != ends && tr.phase == lives })
	if others && len(found) > 1 {
		return
	}
	for _, o := range found {
		ends.add(o.Stat)
	}
}

// known tells whether a process is a worker, or among the descendants of one.
func (t *Tracker) known(s linux.Stat) bool {
	return slices.ContainsFunc(t.trees, func(tr *tree) bool { return tr.has(s.PID, s.Start) })
}

// bySight finds a tree by a process's group and session; first has precedence. This is done
// only for the keeper's children: elsewhere the numbers may be in use by other processes.
func (t *Tracker) bySight(s linux.Stat, first *tree) *tree {
	if t.cfg.Keeper == 0 || s.Parent != t.cfg.Keeper {
		return nil
	}
	for _, tr := range append([]*tree{first}, t.trees...) {
		if s.Start >= tr.leader.Start && (slices.Contains(tr.seen, s.Group) || slices.Contains(tr.seen, s.Session)) {
			return tr
		}
	}
	return nil
}

// reparented adds descendants that have become the keeper's children since.
func (t *Tracker) reparented(tr *tree) {
	if t.cfg.Keeper == 0 {
		return
	}
	for _, pid := range linux.Children(t.cfg.Keeper) {
		if s, err := linux.ReadStat(pid); err == nil && !t.known(s) && t.bySight(s, tr) == tr {
			tr.add(s)
		}
	}
	tr.look()
}

// KillUnrecorded kills processes of workers of which unrecorded is true, and what descends
// from them, and returns them. It blocks for so long at most.
func (t *Tracker) KillUnrecorded(unrecorded func(Worker) bool, timeout time.Duration) (all []Process) {
	for _, o := range t.Orphans(timeout)() {
		if o.Of == 0 || t.known(o.Stat) || !unrecorded(o.Of) {
			continue
		}
		tr := &tree{}
		tr.add(o.Stat)
		tr.look()
		all = append(all, tr.signal(unix.SIGKILL, nil)...)
	}
	return all
}
