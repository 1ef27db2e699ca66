package node

import (
	"encoding/json"
	"time"

	"handoff/internal/events"
	"handoff/internal/nodeipc"
)

// event is a worker event: a message of a worker for the program that started handoff
// (the Node SDK), as a line of JSON.
type event struct {
	Time       time.Time       `json:"time"`
	Event      string          `json:"event"` // node.online, node.listening, node.message, node.disconnect
	Slot       int             `json:"slot"`
	PID        int             `json:"pid"`
	Generation int             `json:"generation"`
	Worker     int             `json:"worker"`
	Message    json.RawMessage `json:"message,omitempty"` // node.message
	Address    *address        `json:"address,omitempty"` // node.listening
}

// address is the address of the event listening of Node's cluster module.
type address struct {
	Address     *string `json:"address"` // null: any
	Port        int     `json:"port"`
	AddressType any     `json:"addressType"` // 4, 6, -1, udp4, udp6
}

// record records a message (nil: the channel has closed), if events are recorded. Any
// goroutine may call it, but only Serve may with messages of the program: it may block
// until the reader has caught up.
func (s *Session) record(msg nodeipc.Message, raw []byte) {
	if s.primary.record == nil {
		return
	}
	e, wait := event{Time: time.Now(), Slot: s.Slot, PID: s.PID, Generation: s.Gen, Worker: int(s.ID)}, false
	switch msg := msg.(type) {
	case nil:
		e.Event = events.NodeDisconnect
	case nodeipc.Online:
		e.Event = events.NodeOnline
	case nodeipc.Listening:
		e.Event = events.NodeListening
		e.Address = &address{nil, msg.Port, msg.Type.Wire()}
		if msg.Address != "" {
			e.Address.Address = &msg.Address
		}
	case nodeipc.Ready, nodeipc.ReplaceMe, nodeipc.Requests, nodeipc.Other:
		e.Event, e.Message, wait = events.NodeMessage, raw, true
	default:
		return
	}
	if b, err := json.Marshal(e); err == nil {
		s.recording.Store(wait)
		s.primary.record(append(b, '\n'), wait)
		s.recording.Store(false)
	}
}
