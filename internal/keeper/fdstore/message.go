package fdstore

import (
	"slices"
	"strings"
)

// Message is what a process has told the keeper.
type Message struct {
	Manager    string // the rest is for the service manager above; see ForManager
	ForManager bool

	Candidate bool
	Ready     bool
	Stopping  bool
	Leaving   bool
	Upgrade   Upgrade
	Promises  bool // Runs will be said
	Runs      bool
	Took      []string // names of signals

	store, remove, give, begin, end bool
	name                            string
}

// Upgrade is whether a master has a candidate started.
type Upgrade int

// What a master may say of it.
const (
	Unsaid Upgrade = iota
	NotAwaited
	Awaited
)

// Parse reads a datagram.
func Parse(text string) (m Message) {
	if rest, ok := strings.CutPrefix(text, "X_UP=1\n"); ok { // none of it is for the keeper
		return Message{Manager: rest, ForManager: true}
	}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if !ok {
			continue
		}
		yes := value == "1"
		switch key {
		case "X_CANDIDATE":
			m.Candidate = yes
		case "READY":
			m.Ready = yes
		case "STOPPING":
			m.Stopping = yes
		case "X_LEAVING":
			m.Leaving = yes
		case "X_UPGRADE":
			if m.Upgrade = NotAwaited; yes {
				m.Upgrade = Awaited
			}
		case "X_RUNS":
			m.Promises, m.Runs = !yes, yes
		case "X_TOOK":
			m.Took = slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == "" })
		case "FDSTORE":
			m.store = yes
		case "FDSTOREREMOVE":
			m.remove = yes
		case "FDNAME":
			m.name = value
		case "X_GIVE":
			m.give = yes
		case "X_BEGIN":
			m.begin = yes
		case "X_END":
			m.end = yes
		}
	}
	return m
}
