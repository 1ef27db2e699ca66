package descendants

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// State is a tracker as plain data, for the master that comes after this one. It outlives
// the program: fields are added, with a zero value that means what was before.
type State struct {
	Trees []TreeState `json:"trees,omitempty"`
}

// TreeState is what is known of a worker's descendants.
type TreeState struct {
	Of      Worker        `json:"of"`
	Leader  Process       `json:"leader"`
	Image   string        `json:"image,omitempty"`
	Members []Process     `json:"members,omitempty"`
	Seen    []int         `json:"seen,omitempty"`
	Phase   int           `json:"phase,omitempty"`
	At      time.Time     `json:"at"`
	Grace   time.Duration `json:"grace,omitempty"`
	Hard    bool          `json:"hard,omitempty"`
	Serving []int         `json:"serving,omitempty"` // pids of members that serve connections
	Ports   []uint16      `json:"ports,omitempty"`
	// Listening are pids of those that also have a listening socket, each with the inodes of
	// the connections that they had at first.
	Listening map[int][]uint64 `json:"listening,omitempty"`
}

// State returns what the next master must know.
func (t *Tracker) State() (s State) {
	for _, tr := range t.trees {
		ts := TreeState{Of: tr.of, Leader: tr.leader, Image: tr.image, Members: tr.processes(), Seen: slices.Clone(tr.seen),
			Phase: int(tr.phase), At: tr.at, Grace: tr.grace, Hard: tr.hard, Ports: slices.Clone(tr.ports)}
		for _, m := range tr.members {
			if m.serves {
				ts.Serving = append(ts.Serving, m.PID)
			}
			if m.listens {
				if ts.Listening == nil {
					ts.Listening = map[int][]uint64{}
				}
				ts.Listening[m.PID] = slices.Clone(m.had)
			}
		}
		s.Trees = append(s.Trees, ts)
	}
	return s
}

// Restore goes on with what a master before has known, of that instance and whose keeper
// was that one; 0 and "": the same. The processes may have ended, and their pids be in use
// again. What it was about to do it may not have done.
func (t *Tracker) Restore(s State, keeper int, instance string, now time.Time) {
	if keeper != 0 && keeper != t.cfg.Keeper {
		t.cfg.Keeper = 0 // orphans fell to whom the one before did
	}
	if instance != "" {
		t.cfg.Instance = instance
	}
	for _, ts := range s.Trees {
		tr := &tree{of: ts.Of, leader: ts.Leader, image: ts.Image, seen: ts.Seen, phase: min(max(phase(ts.Phase), lives), killed), at: ts.At, grace: ts.Grace, hard: ts.Hard, ports: ts.Ports}
		for _, p := range ts.Members {
			had, listens := ts.Listening[p.PID]
			tr.members = append(tr.members, &member{Process: p, serves: slices.Contains(ts.Serving, p.PID), listens: listens, had: had})
		}
		tr.group, _ = tr.leader.open()
		tr.look()
		t.trees = append(t.trees, tr)
		if tr.phase == lives {
			continue
		}
		t.watch(tr)
		switch tr.phase {
		case terminated:
			tr.signal(unix.SIGTERM, nil)
		case killed:
			t.exterminate(tr)
			tr.at = now.Add(endTimeout)
		}
	}
	t.lookAgain(now)
	t.forget()
}
