package linux

// Descendants opens the processes that descend from one, the nearest first, but for those
// that skip is true of (nil: none). The caller closes them. A child is opened first, and
// its parent looked at then, so that a pid that is in use again is nobody else's; the one
// that they descend from must not be reaped meanwhile.
func Descendants(of int, skip func(Stat) bool) (all []*Pidfd) {
	for parents := []int{of}; len(parents) > 0 && len(all) < maxDescendants; parents = parents[1:] {
		for _, pid := range Children(parents[0]) {
			p, err := OpenPidfd(pid)
			if err != nil {
				continue
			}
			s, err := ReadStat(pid)
			if err != nil || s.Parent != parents[0] || skip != nil && skip(s) {
				p.Close()
				continue
			}
			all, parents = append(all, p), append(parents, pid)
		}
	}
	return all
}

const maxDescendants = 1 << 14
