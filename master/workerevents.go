package master

import (
	"encoding/json"
	"time"

	"handoff/internal/events"
	"handoff/internal/nodeipc"
)

// A program that has started handoff (the Node SDK) follows what its workers say, by
// Config.WorkerEvents, and speaks to them, by Control.

// workerEvent is a line of Config.WorkerEvents: a message of a Node worker.
type workerEvent struct {
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

// publisher returns what publishes the messages of a worker (nil: its channel has
// closed); nil: they are not recorded. It may be called from any goroutine, but with
// messages of the program's own only from one that may wait.
func (m *Master) publisher(w *worker) func(nodeipc.Message, []byte) {
	if m.cfg.WorkerEvents == nil {
		return nil
	}
	line := workerEvent{Slot: w.slot, PID: w.process.PID(), Generation: int(w.gen), Worker: int(w.id)}
	return func(msg nodeipc.Message, raw []byte) {
		line, wait := line, false
		line.Time = time.Now()
		switch msg := msg.(type) {
		case nil:
			line.Event = events.NodeDisconnect
		case nodeipc.Online:
			line.Event = events.NodeOnline
		case nodeipc.Listening:
			line.Event = events.NodeListening
			line.Address = &nodeAddress{nil, msg.Port, msg.Type.Wire()}
			if msg.Address != "" {
				line.Address.Address = &msg.Address
			}
		case nodeipc.Ready, nodeipc.ReplaceMe, nodeipc.Requests, nodeipc.Other:
			line.Event, line.Message, wait = events.NodeMessage, raw, true
		default:
			return
		}
		if b, err := json.Marshal(line); err == nil {
			w.publishing.Store(wait)
			m.cfg.WorkerEvents(append(b, '\n'), wait)
			w.publishing.Store(false)
		}
	}
}
