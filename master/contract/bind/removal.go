package bind

import (
	"slices"
	"time"

	"handoff/master/listeners"
)

// removal is an unlink of a socket's file, which nobody holds, by a worker. Another worker's
// bind there waits until it is done: else it would remove the new file.
type removal struct {
	s     *Session
	place listeners.Place
}

// startTogether is for how long after the start of a worker beside others unlinks are looked
// at more closely.
const startTogether = 5 * time.Minute

// removed: a removal is done.
type removed struct{ place listeners.Place }

// removes executes an unlink.
func (s *Session) removes(c call, p listeners.Place) {
	s.contract.paths.removals = append(s.contract.paths.removals, removal{s, p})
	c.Remove(func() { s.Post(removed{p}) })
}

func (c *Contract) isRemoved(p listeners.Place) bool {
	return slices.ContainsFunc(c.paths.removals, func(r removal) bool { return r.place == p })
}

func (c *Contract) endRemoval(s *Session, p listeners.Place) {
	if i := slices.Index(c.paths.removals, removal{s, p}); i >= 0 {
		c.paths.removals = slices.Delete(c.paths.removals, i, i+1)
	}
}

func (c *Contract) forgetRemovals(s *Session) {
	c.paths.removals = slices.DeleteFunc(c.paths.removals, func(r removal) bool { return r.s == s })
}
