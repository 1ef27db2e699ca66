package listeners

import "slices"

// Serving returns the ports on which a worker has leases, and whether it has any lease.
func (t *Table) Serving(id Worker) (ports []uint16, any bool) {
	for _, a := range t.list {
		if a.LeaseOf(id) == nil {
			continue
		}
		any = true
		if a.group != nil {
			ports = append(ports, a.group.Addr().Port())
		}
	}
	return ports, any
}

// AllSteerable reports whether new connections to every address go only to sockets of
// workers that are steered to.
func (t *Table) AllSteerable() bool {
	return !slices.ContainsFunc(t.list, func(a *Address) bool { return !a.Steerable() })
}
