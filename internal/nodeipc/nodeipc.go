// Package nodeipc implements Node's child-process channel and cluster protocol as data:
// bytes in, messages out, and vice versa. With it a master that is not a Node program can
// be the parent of unmodified cluster workers.
//
//	worker                                   master
//	  {act:"online"}                    ──►
//	  {act:"queryServer", port, seq:1}  ──►
//	                                    ◄──  NODE_HANDLE{msg:{ack:1,key}} + descriptor
//	  NODE_HANDLE_ACK                   ──►
//	  {act:"listening", port}           ──►
//	  ... serves ...
//	                                    ◄──  {act:"disconnect"}
//	  {act:"close", key}                ──►
//	  (its connections end) EOF         ──►
//
// Each message is a line of JSON. Sources: Node's lib/internal/child_process.js
// and lib/internal/cluster/{child,primary,shared_handle,utils}.js; tried on
// Node 12 to 26. What a worker sends is untrusted: lines are bounded, and
// anything that is not understood is reported and skipped.
package nodeipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Environment of a worker. Node deletes these from the program's own
// process.env, so nothing that it starts inherits them.
const (
	EnvChannel       = "NODE_CHANNEL_FD"
	EnvSerialization = "NODE_CHANNEL_SERIALIZATION_MODE"
	EnvUniqueID      = "NODE_UNIQUE_ID"
)

// MaxLine is the maximum length of a line, in bytes. A program may send megabytes to its
// parent; longer lines are dropped.
const MaxLine = 1 << 20

const (
	maxData    = 1 << 10 // of a Query's data: TLS ticket keys have 130 bytes, and it is kept as long as the address
	maxAddress = 4 << 10
)

// Splitter splits the stream into lines. The zero value is ready for use.
type Splitter struct {
	partial  []byte
	skipping bool // inside a line that is too long
}

// Feed takes bytes as they arrive and calls line for each whole line, which is
// valid until line returns. It returns the number of lines dropped for their
// length.
func (s *Splitter) Feed(p []byte, line func([]byte)) (dropped int) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		end := i
		if i < 0 {
			end = len(p)
		}
		if !s.skipping && len(s.partial)+end > MaxLine {
			s.partial, s.skipping = nil, true
			dropped++
		}
		switch {
		case s.skipping:
		case i >= 0 && len(s.partial) == 0:
			line(p[:end])
		default:
			s.partial = append(s.partial, p[:end]...)
			if i >= 0 {
				line(s.partial)
				s.partial = s.partial[:0]
				if cap(s.partial) > 64<<10 {
					s.partial = nil
				}
			}
		}
		if i < 0 {
			return dropped
		}
		s.skipping = false
		p = p[i+1:]
	}
	return dropped
}

// Message is one message of a worker: one of the types below.
type Message interface{ message() }

type (
	// Online: the process has booted.
	Online struct{}
	// Query requests a socket. Answer with Reply or Refuse.
	Query struct {
		Seq     int
		Index   int // counts equal requests within the process
		Address string
		Any     bool // no address given: dual-stack if possible, else IPv4
		Port    int
		Type    AddressType
		FD      int // the worker's own descriptor to serve on, or -1
		V6Only  bool
		Data    json.RawMessage // returned to all workers of the address as the first one sent it
		TooLong bool            // the data is too long, and omitted: refuse the query
	}
	// Listening says that the process accepts on a socket: the one that a
	// Query with the same Address, Type and Index asked for. Port is the real
	// one where that asked for 0.
	Listening struct {
		Address string
		Port    int
		Type    AddressType
		Index   int
		FD      int // as in Query
	}
	// Closed: the process has closed the server with that key.
	Closed struct{ Key string }
	// Left: the process has drained by itself. It waits for Ack before it exits.
	Left struct{ Seq int }
	// Answered is the answer to a NewConn.
	Answered struct {
		Ack      int
		Accepted bool
	}
	// HandleTaken is the receipt for a message with a descriptor, after which
	// the next one may be sent. Ok is false when the message came without it.
	HandleTaken struct{ Ok bool }
	// HandleSent is a message with a descriptor of the program's own. Answer
	// with HandleReceipt. Message is what it carried.
	HandleSent struct{ Message Message }
	// Ready is the program's {cmd:'ready'} or 'ready'.
	Ready struct{}
	// ReplaceMe is the program's {cmd:'disconnect'} or
	// {event:'request-restart'}: it asks to be replaced, then drained.
	ReplaceMe struct{}
	// Requests is {cmd:'handoff:requests', requests:N}: the program has served N
	// since its start.
	Requests struct{ N int }
	// Other is any other message of the program.
	Other struct{}
)

func (Online) message()      {}
func (Query) message()       {}
func (Listening) message()   {}
func (Closed) message()      {}
func (Left) message()        {}
func (Answered) message()    {}
func (HandleTaken) message() {}
func (HandleSent) message()  {}
func (Ready) message()       {}
func (ReplaceMe) message()   {}
func (Requests) message()    {}
func (Other) message()       {}

// AddressType is Node's addressType.
type AddressType int

// The address types.
const (
	TCP4 AddressType = iota
	TCP6
	Pipe // a unix path
	UDP4
	UDP6
)

// Wire is as Node's messages have it: 4, 6, -1, "udp4" or "udp6".
func (t AddressType) Wire() any {
	return [...]any{4, 6, -1, "udp4", "udp6"}[t]
}

const flagV6Only = 1 // UV_TCP_IPV6ONLY, UV_UDP_IPV6ONLY

// wire has every field that a message of a worker may use.
type wire struct {
	Cmd         string          `json:"cmd"`
	Act         string          `json:"act"`
	Event       string          `json:"event"`
	Seq         int             `json:"seq"`
	Ack         *int            `json:"ack"`
	Accepted    bool            `json:"accepted"`
	Key         string          `json:"key"`
	Index       int             `json:"index"`
	Address     *string         `json:"address"`
	Port        *int            `json:"port"`
	AddressType json.RawMessage `json:"addressType"`
	FD          *int            `json:"fd"`
	Flags       int             `json:"flags"`
	Data        json.RawMessage `json:"data"`
	Msg         json.RawMessage `json:"msg"`
}

// programWire has the fields that are read from a message of the program: its other
// fields may have any type.
type programWire struct {
	Requests any `json:"requests"`
	Cmd      any `json:"cmd"`
	Event    any `json:"event"`
}

// Parse reads one line.
func Parse(line []byte) (Message, error) { return parse(line, 0) }

func parse(line []byte, depth int) (Message, error) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return nil, errors.New("empty line")
	}
	if line[0] != '{' {
		if !json.Valid(line) {
			return nil, errors.New("no JSON")
		}
		if string(line) == `"ready"` {
			return Ready{}, nil
		}
		return Other{}, nil
	}
	var p programWire
	if err := json.Unmarshal(line, &p); err != nil {
		return nil, err
	}
	cmd, _ := p.Cmd.(string)
	if !strings.HasPrefix(cmd, "NODE_") {
		switch event, _ := p.Event.(string); {
		case cmd == "ready":
			return Ready{}, nil
		case cmd == "disconnect", event == "request-restart":
			return ReplaceMe{}, nil
		case cmd == "handoff:requests":
			if n, ok := p.Requests.(float64); ok && n >= 1 && n <= 1<<53 {
				return Requests{int(n)}, nil
			}
		}
		return Other{}, nil
	}
	switch cmd {
	case "NODE_HANDLE_ACK":
		return HandleTaken{Ok: true}, nil
	case "NODE_HANDLE_NACK":
		return HandleTaken{}, nil
	}
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	switch cmd {
	case "NODE_CLUSTER":
		return w.cluster()
	case "NODE_HANDLE":
		if depth > 0 {
			return nil, errors.New("a handle within a handle")
		}
		sent := HandleSent{Message: Other{}}
		if len(w.Msg) > 0 {
			if inner, err := parse(w.Msg, depth+1); err == nil {
				sent.Message = inner
			}
		}
		return sent, nil
	}
	return nil, fmt.Errorf("unknown internal message %.40q", cmd)
}

func (w *wire) cluster() (Message, error) {
	if w.Ack != nil {
		return Answered{Ack: *w.Ack, Accepted: w.Accepted}, nil
	}
	switch w.Act {
	case "online":
		return Online{}, nil
	case "listening":
		m, err := w.query()
		if err != nil {
			return nil, err
		}
		q := m.(Query)
		return Listening{Address: q.Address, Port: q.Port, Type: q.Type, Index: q.Index, FD: q.FD}, nil
	case "close":
		return Closed{Key: w.Key}, nil
	case "exitedAfterDisconnect":
		return Left{Seq: w.Seq}, nil
	case "queryServer":
		return w.query()
	}
	return nil, fmt.Errorf("unknown act %.40q", w.Act)
}

func (w *wire) query() (Message, error) {
	q := Query{Seq: w.Seq, Index: w.Index, FD: -1, TooLong: len(w.Data) > maxData}
	if !q.TooLong {
		q.Data = bytes.Clone(w.Data)
	}
	if w.Address != nil && len(*w.Address) > maxAddress {
		return nil, errors.New("an address of more than 4 KiB")
	}
	switch t := strings.Trim(string(w.AddressType), `"`); t {
	case "4":
		q.Type = TCP4
	case "6":
		q.Type = TCP6
	case "-1":
		q.Type = Pipe
	case "udp4":
		q.Type = UDP4
	case "udp6":
		q.Type = UDP6
	case "", "null":
		if w.FD == nil || *w.FD < 0 {
			return nil, errors.New("queryServer without addressType")
		}
	default:
		return nil, fmt.Errorf("queryServer with addressType %.20s", t)
	}
	if w.Address != nil {
		q.Address = *w.Address
	}
	q.Any = q.Address == ""
	if w.Port != nil {
		q.Port = *w.Port
	}
	if w.FD != nil {
		q.FD = *w.FD
	}
	q.V6Only = w.Flags&flagV6Only != 0
	return q, nil
}
