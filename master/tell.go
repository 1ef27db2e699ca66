package master

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/api"
	"handoff/internal/nodeipc"
	"handoff/master/fleet"
)

// Who has started handoff from a program of their own (the Node SDK) may hear what
// workers say, and speak to them: Config.Tell, and the calls of Control below.

// told is a line of Config.Tell: something that a Node worker says.
type told struct {
	Time       time.Time       `json:"time"`
	Event      string          `json:"event"` // node.online, node.listening, node.message, node.disconnect
	Slot       int             `json:"slot"`
	PID        int             `json:"pid"`
	Generation int             `json:"generation"`
	Worker     int             `json:"worker"`
	Message    json.RawMessage `json:"message,omitempty"` // node.message
	Address    *nodeAddress    `json:"address,omitempty"` // node.listening
}

// nodeAddress is as Node's cluster has it in its event listening.
type nodeAddress struct {
	Address     *string `json:"address"` // null: any
	Port        int     `json:"port"`
	AddressType any     `json:"addressType"` // 4, 6, -1, udp4, udp6
}

// teller returns what tells of a worker; nil: nobody is to hear it. It may be called
// from any goroutine, but with messages of the program's only from one that may wait.
func (m *Master) teller(w *worker) func(nodeipc.Message, []byte) {
	if m.cfg.Tell == nil {
		return nil
	}
	line := told{Slot: w.slot, PID: w.pid, Generation: int(w.gen), Worker: int(w.id)}
	return func(msg nodeipc.Message, raw []byte) {
		line, wait := line, false
		line.Time = time.Now()
		switch msg := msg.(type) {
		case nil:
			line.Event = "node.disconnect"
		case nodeipc.Online:
			line.Event = "node.online"
		case nodeipc.Listening:
			line.Event = "node.listening"
			line.Address = &nodeAddress{nil, msg.Port, msg.Type.Wire()}
			if msg.Address != "" {
				line.Address.Address = &msg.Address
			}
		case nodeipc.Ready, nodeipc.ReplaceMe, nodeipc.Requests, nodeipc.Other:
			line.Event, line.Message, wait = "node.message", raw, true
		default:
			return
		}
		if b, err := json.Marshal(line); err == nil {
			w.telling.Store(wait)
			m.cfg.Tell(append(b, '\n'), wait)
			w.telling.Store(false)
		}
	}
}

// TellStatus puts the status among what is told, as the event cluster.status: in the
// order of all other events, so that who has missed some knows from when on it has not.
func (c Control) TellStatus(ctx context.Context) error {
	return c.do(ctx, func(m *Master) error {
		if m.cfg.Tell == nil {
			return refuse("it was not started by a program of yours: nobody is told")
		}
		b, err := json.Marshal(struct {
			Time   time.Time  `json:"time"`
			Event  string     `json:"event"`
			Status api.Status `json:"status"`
		}{time.Now(), "cluster.status", m.status()})
		if err == nil {
			m.cfg.Tell(append(b, '\n'), false)
		}
		return err
	})
}

// Send sends a message, as JSON, to a Node worker: process.on('message').
func (c Control) Send(ctx context.Context, worker int, message json.RawMessage) error {
	return c.do(ctx, func(m *Master) error {
		w := m.workers[fleet.ID(worker)]
		switch {
		case w == nil || w.dead || w.channel == nil || w.channel.closed:
			return refuse("worker %d has no channel", worker)
		case len(w.channel.out) > queueMost/2 || len(w.channel.held) > holdMost/2:
			return refuse("worker %d does not read what it is sent", worker)
		}
		line, err := nodeipc.Program(message)
		if err != nil {
			return refuse("%v", err)
		}
		m.send(w, line, -1)
		return nil
	})
}

// Signal sends a signal to a worker's process, by its name: TERM.
func (c Control) Signal(ctx context.Context, worker int, name string) error {
	return c.do(ctx, func(m *Master) error {
		w := m.workers[fleet.ID(worker)]
		if w == nil {
			return refuse("there is no worker %d", worker)
		}
		s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
		if s == 0 {
			return refuse("there is no signal %q", name)
		}
		m.log.Info("Worker gets "+unix.SignalName(s)+", as asked", w.attrs("worker.signalled")...)
		if s == unix.SIGKILL {
			return w.killGroup()
		}
		return w.process.signal(s)
	})
}

// Freeze has nobody started any more, whoever ends, for as long as this service
// runs.
func (c Control) Freeze(ctx context.Context) error {
	return c.do(ctx, func(m *Master) error {
		m.log.Info("No worker is started any more, as asked", "event", "cluster.frozen")
		m.step(fleet.Freeze{})
		return nil
	})
}

// SetBalance changes how connections are spread, until the configuration says
// something new: between handoff.Even and handoff.Sticky.
func (c Control) SetBalance(ctx context.Context, b handoff.Balance) error {
	return c.do(ctx, func(m *Master) error {
		if b == handoff.Shared || m.listeners.Balance() == handoff.Shared {
			return refuse("the balance changes between even and sticky alone")
		}
		m.rebalance(b)
		return nil
	})
}

func (m *Master) rebalance(b handoff.Balance) { m.trouble(m.listeners.SetBalance(b)) }
