package listeners

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// State is what the next master needs of a table, besides the sockets. It outlives the
// program: fields are added, with a zero value that means the previous behaviour, and
// never changed or reused.
type State struct {
	Addresses []AddressState `json:"addresses"`
	LastKey   int            `json:"last_key"`
	Targets   []Worker       `json:"seats"`
	Preopened []string       `json:"given,omitempty"` // keys
}

// AddressState is the state of an address.
type AddressState struct {
	Key       string          `json:"key"`
	Kind      int             `json:"kind"` // of the endpoint: 0 TCP over IPv4, 1 over IPv6, 2 a path, 3 UDP over IPv4, 4 over IPv6, 5 a path of SEQPACKET, 6 and 7 UDP with a socket for each worker
	Addr      string          `json:"addr"`
	Any       bool            `json:"any,omitempty"`
	Port      int             `json:"port"`
	V6Only    bool            `json:"v6only,omitempty"`
	Index     int             `json:"index,omitempty"`
	Name      string          `json:"name"`
	Bound     netip.AddrPort  `json:"bound"`
	Steerable bool            `json:"steerable,omitempty"`
	Balance   string          `json:"balance,omitempty"`
	Sockets   []SocketState   `json:"sockets,omitempty"` // in the kernel's order
	Shared    *SharedState    `json:"shared,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Leases    []LeaseState    `json:"holds,omitempty"`
	Preopened bool            `json:"given,omitempty"`
	Unheld    time.Time       `json:"unheld"`
	Hidden    bool            `json:"hidden,omitempty"` // no new connection comes to its sockets
	Aside     bool            `json:"aside,omitempty"`  // likewise, until a worker in service accepts
	Served    bool            `json:"served,omitempty"` // a worker in service accepts, or did
	Waits     time.Time       `json:"waits,omitzero"`   // since when connections wait; zero: they do not
	Waited    time.Duration   `json:"waited,omitempty"`
}

// SocketState is the state of a socket of a group.
type SocketState struct {
	Inode uint64 `json:"inode"`
	Slot  int    `json:"slot"`
	Own   bool   `json:"own,omitempty"` // its worker decides about its flags
	// Foreign: a service manager has made it, and its options are that one's.
	Foreign bool `json:"foreign,omitempty"`
	// Stranger: it is another program's, which has joined with SO_REUSEPORT.
	Stranger bool `json:"stranger,omitempty"`
	// Waits: connections wait there, since no worker is to have them.
	Waits bool `json:"waits,omitempty"`
	Born  int  `json:"born,omitempty"` // in which order they have joined
}

// SharedState is the state of a socket that all workers share.
type SharedState struct {
	Kind string `json:"kind"`
	Path string `json:"path,omitempty"`
	Dev  uint64 `json:"dev,omitempty"`
	Ino  uint64 `json:"ino,omitempty"`
	// Place is where the file is; a worker has made it, if Workers, and the last one meant to
	// remove it, if Unlinked.
	Place    Place `json:"place,omitzero"`
	Second   bool  `json:"second,omitempty"` // the file has a second name
	Workers  bool  `json:"workers,omitempty"`
	Unlinked bool  `json:"unlinked,omitempty"`
	// Of a path that workers have made: the generation of its socket, and how the file was
	// made; Folder: that is stored. Beside are the sockets of other generations.
	Gen    int           `json:"gen,omitempty"`
	Made   Access        `json:"made,omitzero"`
	Folder bool          `json:"folder,omitempty"`
	Beside []BesideState `json:"beside,omitempty"`
}

// LeaseState is the state of a lease.
type LeaseState struct {
	Worker    Worker `json:"worker"`
	Slot      int    `json:"slot"`
	Inode     uint64 `json:"inode,omitempty"` // 0: shared
	Listening bool   `json:"listening,omitempty"`
	AtStart   bool   `json:"given,omitempty"`
	Closed    bool   `json:"closed,omitempty"` // the worker says so, and runs
	Alone     bool   `json:"alone,omitempty"`  // bound without SO_REUSEPORT
}

// Promise is a bind(2) of a worker whose listen(2) has not come.
type Promise struct {
	Addr   netip.AddrPort `json:"addr"`
	V6Only bool           `json:"v6only,omitempty"`
	Inode  uint64         `json:"inode"`
	PID    int            `json:"pid"`
	FD     int            `json:"fd"`
	Alone  bool           `json:"alone,omitempty"` // without SO_REUSEPORT
}

// SetEndpoint sets the endpoint of the state.
func (r *AddressState) SetEndpoint(e Endpoint) {
	for i, k := range slices.Backward(kinds[:]) {
		if k.family == e.Family && k.typ == e.Type {
			r.Kind = i
		}
	}
	r.Addr, r.Any, r.Port, r.V6Only, r.Index = e.Addr, e.Any, e.Port, e.V6Only, e.Index
}

func (r *AddressState) endpoint() (Endpoint, error) {
	if r.Kind < 0 || r.Kind >= len(kinds) {
		return Endpoint{}, fmt.Errorf("cannot take over %s: unknown kind %d", r.Name, r.Kind)
	}
	k := kinds[r.Kind]
	return Endpoint{k.family, k.typ, r.Addr, r.Any, r.Port, r.V6Only, r.Index}, nil
}

// State returns what the next master needs.
func (t *Table) State() State {
	s := State{LastKey: t.lastKey, Targets: t.targets}
	for _, a := range t.list {
		s.Addresses = append(s.Addresses, a.state())
	}
	for _, p := range t.preopened {
		key := ""
		if p.address != nil {
			key = p.address.key
		}
		s.Preopened = append(s.Preopened, key)
	}
	return s
}

func (a *Address) state() AddressState {
	r := AddressState{Key: a.key, Name: a.name, Data: a.data, Preopened: a.preopened, Unheld: a.unheld, Served: a.served, Waits: a.waits, Waited: a.waited}
	r.SetEndpoint(a.endpoint)
	a.kind.state(&r)
	for _, l := range a.leases {
		r.Leases = append(r.Leases, LeaseState{l.worker, l.slot, l.Inode(), l.listening, l.atStart, false, l.alone})
	}
	for _, l := range a.left {
		r.Leases = append(r.Leases, LeaseState{Worker: l.worker, Slot: l.slot, Inode: l.Inode(), Closed: true})
	}
	return r
}

// LostError means that an address of the previous master is lost.
type LostError struct {
	Name string // of the address
	Err  error
}

func (e *LostError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *LostError) Unwrap() error { return e.Err }

// Restore takes over the state of a previous table. fd returns the descriptor stored by a
// name, which the table owns from then on, -1 for none. It changes nothing in the kernel:
// the targets remain until [Table.Steer]. For each address that cannot be taken over it
// returns a [LostError].
func (t *Table) Restore(s State, fd func(name string) int) (lost []*LostError) {
	t.lastKey, t.targets = s.LastKey, s.Targets
	for _, r := range s.Addresses {
		if err := t.restore(r, fd); err != nil {
			lost = append(lost, &LostError{r.Name, err})
		}
	}
	return lost
}

func (t *Table) restore(r AddressState, fd func(string) int) error {
	e, err := r.endpoint()
	if err != nil {
		return err
	}
	k, err := t.restoreKind(r, e, fd)
	if err != nil {
		return err
	}
	a := &Address{table: t, key: r.Key, endpoint: e, data: r.Data, preopened: r.Preopened, unheld: r.Unheld, served: r.Served, shared: true, waits: r.Waits, waited: r.Waited}
	t.add(a, k)
	a.name = r.Name
	for _, lr := range r.Leases {
		l := &Lease{address: a, worker: lr.Worker, slot: lr.Slot, listening: lr.Listening, atStart: lr.AtStart, alone: lr.Alone}
		if a.group == nil {
			_, l.fd, _ = k.take(lr.Slot)
			if s, ok := k.(*shared); ok {
				l.unix = lr.Inode
				s.point(l)
			}
			a.leases = append(a.leases, l)
			continue
		}
		for _, s := range a.group.Sockets() {
			if s.Inode() != lr.Inode {
				continue
			}
			if l.socket, l.fd = s, s.FD(); lr.Closed {
				s.Reserve(true)
				a.left = append(a.left, l)
			} else {
				s.Tag(uint32(l.worker))
				a.leases = append(a.leases, l)
			}
		}
	}
	return nil
}

// Kept calls each for each descriptor that the next master needs, with its name.
func (t *Table) Kept(each func(name string, fd int)) {
	for _, a := range t.list {
		a.kind.kept(each)
	}
}

// Report has the numbers of a table for the status.
type Report struct {
	Addresses []AddressReport
	Queues    map[Worker]int // queued connections
	MaxQueue  int            // the longest queue seen
}

// AddressReport has the numbers of an address.
type AddressReport struct {
	Name    string
	Balance string        // even, sticky, shared; hash where the kernel refuses to steer
	Queue   int           // connections not accepted yet
	Waited  time.Duration // the longest time for which connections had to wait for the next worker
}

// Report reads all accept queues.
func (t *Table) Report() Report {
	r := Report{Queues: map[Worker]int{}}
	for _, a := range t.list {
		ar := AddressReport{Name: a.name, Balance: "shared", Waited: a.waited}
		if g := a.group; g != nil {
			if ar.Balance = g.Balance().String(); !g.Steerable() && ar.Balance != "shared" {
				ar.Balance = "hash"
			}
			for _, s := range g.Sockets() {
				n := s.Pending()
				ar.Queue += n
				r.MaxQueue = max(r.MaxQueue, n, g.MaxQueue())
			}
			for _, l := range a.leases {
				r.Queues[l.worker] += l.socket.Pending()
			}
		}
		r.Addresses = append(r.Addresses, ar)
	}
	return r
}
