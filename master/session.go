package master

import (
	"errors"
	"net/netip"
	"time"

	"handoff/internal/cmsg"
	"handoff/internal/events"
	"handoff/internal/keeper/fdstore"
	"handoff/master/contract"
	"handoff/master/contract/bind"
	"handoff/master/contract/node"
	"handoff/master/descendants"
	"handoff/master/fleet"
	"handoff/master/listeners"
	"handoff/master/readiness"
	"handoff/master/unheld"
)

// Contract defines how a worker gets its sockets.
type Contract string

// The contracts.
const (
	NodeContract Contract = "node" // the master is the primary of Node's cluster module
	BindContract Contract = "bind" // bind(2) and listen(2) are answered by the master
	// ActivationContract passes sockets at the start, and nothing else.
	ActivationContract Contract = "activation"
)

// newContract returns the configured contract. seq is the number of the previous master's
// last message.
func (m *Master) newContract(seq int) workerContract {
	if m.cfg.Contract == NodeContract {
		return node.New(sessionHost{m}, seq, m.cfg.WorkerEvents)
	}
	return bind.New(sessionHost{m}, m.cfg.Contract == BindContract)
}

// workerContract is the contract of all workers.
type workerContract interface {
	Plan() contract.Plan
	// Start starts a session with a worker that has the other end of the socketpair.
	Start(contract.Worker, *cmsg.Conn) contract.Session
	// Restore continues a session of the previous master.
	Restore(w contract.Worker, s contract.State, take func(what string) int) (contract.Session, error)
	Queued(listeners.Queue) // a connection was queued at a parked socket
	Accepted(listeners.Accepted)
	Retry() // targets or listening workers have changed
	Deadline() time.Time
	Tick(now time.Time)
	GiveUp()  // the service stops
	Seq() int // of the last message, for the next master
}

// counterpart is the worker, as its session sees it.
func (m *Master) counterpart(w *worker) contract.Worker {
	keep := m.keep // the session's goroutines must not look it up
	return contract.Worker{ID: listeners.Worker(w.id), Slot: w.slot, Dir: m.programs.Of(w.gen).Dir(), PID: w.process.PID(), Gen: int(w.gen), Process: w.process.Pidfd(),
		Post:  func(what any) { m.mail.post(fromSession{w.session, what}) },
		Store: func(what string, fd int) error { return keep.Store(fdstore.WorkerName(int(w.id), what), fd) },
	}
}

// sessionHost is the master, as sessions see it.
type sessionHost struct{ m *Master }

func (h sessionHost) Listeners() *listeners.Table    { return h.m.listeners }
func (h sessionHost) Steer()                         { h.m.resteer() }
func (h sessionHost) Complete() bool                 { return h.m.fleet.Complete() }
func (h sessionHost) Stopping() bool                 { return h.m.fleet.Stopping() }
func (h sessionHost) Grace() time.Duration           { return h.m.grace() }
func (h sessionHost) Holds(addr netip.AddrPort) bool { return h.m.cfg.Holds(addr) }
func (h sessionHost) Ready(id listeners.Worker) bool { return h.m.fleet.Started(fleet.ID(id)) }

// Report takes a fact from a session.
func (h sessionHost) Report(id listeners.Worker, f contract.Fact) {
	m := h.m
	if c, ok := f.(contract.Caller); ok {
		m.descendants.Found(descendants.Worker(id), c.PID, m.cfg.Fleet.KillGrace, time.Now())
		return
	}
	if w := m.workers[fleet.ID(id)]; w != nil {
		m.learned(w, f)
		return
	}
	switch f := f.(type) { // of no worker in particular
	case contract.Rescued:
		m.history.counters.Rescued += f.N
		m.log.Info("Handed connections from a parked socket to live workers", "event", events.AddressRescued, "address", f.Address.Name(), "connections", f.N)
	case contract.NotRescued:
		m.log.Error("Cannot take a stranded connection: "+f.Err.Error(), "event", events.AddressRescued, "address", f.Address.Name())
	case contract.Lost:
		m.history.counters.Stranded++
		m.log.Error("Lost a stranded connection: "+f.Reason, "event", events.AddressStranded, "address", f.Address.Name())
	}
}

// learned handles a fact about a worker.
func (m *Master) learned(w *worker, f contract.Fact) {
	switch f := f.(type) {
	case contract.Started:
		m.readyWhen(Started, w, readiness.Says)
	case contract.Listening:
		w.refused = ""
		if f.Own && m.cfg.Contract == NodeContract && m.listeners.Count(listeners.Worker(w.id)) == 0 {
			m.once("own descriptor", unheld.Descriptor, w.attrs(events.WorkerUnseated)...)
		}
		if m.readyWhen(Listening, w, map[bool]readiness.Claim{true: readiness.Own}[f.Own]); m.cfg.ReadyWhen != Listening {
			m.judge() // it may have lacked this one
		}
	case contract.Ready:
		m.readyWhen(Ready, w, readiness.Says)
	case contract.Requests:
		m.served(w, f.N)
	case contract.Leaving:
		m.leaving(w)
	case contract.Disconnected:
		m.step(fleet.Drained{ID: w.id})
	case contract.Overflow:
		m.log.Error("Killing worker: "+f.Err.Error(), w.attrs(events.WorkerKilled)...)
		m.kill(w)
	case contract.ProtocolError:
		m.log.Warn("Message from a worker dropped: "+f.Reason, w.attrs(events.WorkerGarbled)...)
	case contract.Refused:
		if who := (*listeners.InUse)(nil); errors.As(f.Err, &who) {
			w.refused = f.Err.Error()
		}
		m.log.Error("Cannot give a worker its socket: "+f.Err.Error(), w.attrs(events.AddressRefused, "port", f.Endpoint.Port)...)
	case contract.Unplaced:
		m.log.Error(f.Err.Error(), w.attrs(events.AddressRefused, "address", f.Address.Name())...)
	case contract.Blind:
		m.once("getfd", "pidfd_getfd is refused (a container's seccomp profile?): sockets are held, but options that the program sets before bind are lost, and a port 0 is not held", w.attrs(events.WorkerUnseated)...)
	case contract.Own:
		m.once("own "+f.Kind(), f.String(), w.attrs(events.AddressOwn, "address", f.Name())...)
	case contract.Unfiltered:
		m.once("seccomp", "The kernel refuses a seccomp notification filter ("+f.Err.Error()+
			"): the program's own sockets are not held. Give it sockets with --listen ADDR, if it takes them as systemd passes them (LISTEN_FDS)", w.attrs(events.WorkerUnseated)...)
	case contract.Resumed:
		m.log.Debug("Answered a bind that the previous master left unanswered", w.attrs(events.WorkerSeated, "address", f.Address.Name())...)
	case contract.Stranded:
		m.log.Warn("Connections queued on a socket without a worker: the worker of the slot is replaced, the next one takes them",
			w.attrs(events.AddressStranded, "address", f.Address.Name())...)
		m.step(fleet.Leave{ID: w.id})
	}
}

// readyWhen handles an event that can count as ready.
func (m *Master) readyWhen(what ReadyWhen, w *worker, claim readiness.Claim) {
	if m.cfg.ReadyWhen == what {
		m.claims(w, claim)
	}
}
