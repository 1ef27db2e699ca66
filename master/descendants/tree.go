package descendants

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// maxMembers bounds what is known of one worker: a program that forks without end
// delays nobody else.
const maxMembers = 1 << 10

// look forgets the members that are dead, and finds children of those that live, and of
// the worker while it does.
func (tr *tree) look() {
	tr.members = slices.DeleteFunc(tr.members, func(m *member) bool { return !tr.refresh(m) })
	var parents []int
	if s, err := linux.ReadStat(tr.leader.PID); err == nil && tr.phase == lives && s.Start == tr.leader.Start {
		tr.leader.Session = s.Session
		if image := linux.Image(tr.leader.PID); image != "" { // it is "" when it is dead
			tr.image = image
		}
		parents = append(parents, tr.leader.PID)
	}
	for _, m := range tr.members {
		parents = append(parents, m.PID)
	}
	for i := 0; i < len(parents); i++ {
		for _, pid := range linux.Children(parents[i]) {
			if s, err := linux.ReadStat(pid); err == nil && s.Parent == parents[i] && tr.add(s) {
				parents = append(parents, pid)
			}
		}
	}
}

// refresh looks at a member again, and tells whether it lives.
func (tr *tree) refresh(m *member) bool {
	s, err := linux.ReadStat(m.PID)
	if err != nil || s.Start != m.Start || dead(s) {
		m.close()
		return false
	}
	m.Process, m.parent = describe(s), s.Parent
	tr.saw(m.Group, m.Session)
	return true
}

// dead tells whether all of a process is: one whose first thread has ended looks like a
// zombie, too, and goes on.
func dead(s linux.Stat) bool { return s.State == 'X' || s.State == 'Z' && s.Threads <= 1 }

// add makes a process a member, and tells whether it is a new one.
func (tr *tree) add(s linux.Stat) bool {
	if dead(s) || len(tr.members) >= maxMembers || tr.has(s.PID, s.Start) {
		return false
	}
	m := &member{Process: describe(s), parent: s.Parent}
	tr.members = append(tr.members, m)
	tr.saw(m.Group, m.Session)
	return true
}

func (tr *tree) has(pid int, start uint64) bool {
	return pid == tr.leader.PID && start == tr.leader.Start ||
		slices.ContainsFunc(tr.members, func(m *member) bool { return m.PID == pid && m.Start == start })
}

// saw notes groups and sessions that are the worker's descendants' alone: the worker's own
// session is handoff's, unless it leads it.
func (tr *tree) saw(ids ...int) {
	for _, id := range ids {
		if id > 1 && !slices.Contains(tr.seen, id) && (id != tr.leader.Session || id == tr.leader.PID) {
			tr.seen = append(tr.seen, id)
		}
	}
}

func (tr *tree) processes() (all []Process) {
	for _, m := range tr.members {
		all = append(all, m.Process)
	}
	return all
}

// signal sends a signal to the members for which to is true, or to all, and returns those
// that took it.
func (tr *tree) signal(s unix.Signal, to func(*member) bool) (all []Process) {
	for _, m := range tr.members {
		if (to == nil || to(m)) && m.signal(s) {
			all = append(all, m.Process)
		}
	}
	return all
}

// signal sends a signal, and tells whether it was taken.
func (m *member) signal(s unix.Signal) bool {
	p := m.pidfd
	if p == nil {
		if p, m.err = m.open(); m.err != nil {
			return false
		}
		defer p.Close()
	}
	m.err = p.Signal(s)
	return m.err == nil
}

// open opens a process, and looks then whether it is still the same: what is open cannot
// become another one.
func (p Process) open() (*linux.Pidfd, error) {
	pidfd, err := linux.OpenPidfd(p.PID)
	if err != nil {
		return nil, err
	}
	if s, err := linux.ReadStat(p.PID); err != nil || s.Start != p.Start {
		pidfd.Close()
		return nil, unix.ESRCH
	}
	return pidfd, nil
}

func (m *member) close() {
	if m.pidfd != nil {
		m.pidfd.Close()
	}
}

// watch has the end of each member reported, and returns what tells those for which it
// was not before.
func (t *Tracker) watch(tr *tree) (isNew func(*member) bool) {
	var news []*member
	died := t.cfg.Died
	for _, m := range tr.members {
		if m.pidfd != nil {
			continue
		}
		if m.pidfd, m.err = m.open(); m.err != nil {
			continue // it has gone: the next look finds that
		}
		news = append(news, m)
		go func(p *linux.Pidfd) { // ends with the process, or with the descriptor
			if p.AwaitDeath(time.Time{}) == nil {
				died()
			}
		}(m.pidfd)
	}
	tr.members = slices.DeleteFunc(tr.members, func(m *member) bool { return m.pidfd == nil && m.err == unix.ESRCH })
	return func(m *member) bool { return slices.Contains(news, m) }
}
