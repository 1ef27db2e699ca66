package nodeipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// HandleType is the type of a descriptor for the receiving worker.
type HandleType string

// The types of descriptors that a master sends.
const (
	Stream   HandleType = "net.Native"   // a TCP or unix socket, listening or connected
	Datagram HandleType = "dgram.Native" // a UDP socket
)

type outgoing struct {
	Cmd   string          `json:"cmd"`
	Act   string          `json:"act,omitempty"`
	Ack   *int            `json:"ack,omitempty"`
	Key   string          `json:"key,omitempty"`
	Errno *int            `json:"errno,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
	Seq   int             `json:"seq,omitempty"`
	Type  HandleType      `json:"type,omitempty"`
	Msg   *outgoing       `json:"msg,omitempty"`

	Message string `json:"message,omitempty"` // of a drain
}

func (m outgoing) line() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		// Data is the only field that could be malformed, and it has been
		// parsed as JSON on its way in.
		panic(err)
	}
	return append(b, '\n')
}

func withHandle(t HandleType, m outgoing) []byte {
	return outgoing{Cmd: "NODE_HANDLE", Type: t, Msg: &m}.line()
}

// Reply answers a Query with a socket, whose descriptor goes with the first
// byte. key names the socket in the worker's later messages.
func Reply(q Query, t HandleType, key string, data json.RawMessage) []byte {
	errno := 0
	return withHandle(t, outgoing{Cmd: "NODE_CLUSTER", Ack: &q.Seq, Key: key, Errno: &errno, Data: data, Seq: q.Seq})
}

// Refuse answers a Query with an error, a positive errno: the program gets it as
// its server's error event. (A reply with neither descriptor nor errno would
// mean that the master accepts and passes connections on.)
func Refuse(q Query, key string, errno int) []byte {
	errno = -errno
	return outgoing{Cmd: "NODE_CLUSTER", Ack: &q.Seq, Key: key, Errno: &errno, Data: q.Data}.line()
}

// NewConn hands an accepted connection over, whose descriptor goes with the
// first byte; the answer has seq as its Ack. The handle is a native one, as in
// Node's round robin: with type net.Socket the worker would make a socket of it
// that belongs to no server, and crash at its first error.
func NewConn(key string, seq int) []byte {
	return withHandle(Stream, outgoing{Cmd: "NODE_CLUSTER", Act: "newconn", Key: key, Seq: seq})
}

// Ack answers Left.
func Ack(seq int) []byte { return outgoing{Cmd: "NODE_CLUSTER", Ack: &seq}.line() }

// HandleReceipt answers HandleSent.
func HandleReceipt() []byte { return outgoing{Cmd: "NODE_HANDLE_ACK"}.line() }

// Drain tells the preload, if it is there (nobody else sees a cmd that begins
// with NODE_), then the program, then the cluster module: every server of the
// worker is closed, and the channel when their connections have ended. The program
// gets message too, if it is not empty. The preload knows it, and delivers both messages
// of the program at the end of the linger.
func Drain(seq int, message string) []byte {
	messages := outgoing{Cmd: "NODE_HANDOFF", Act: "drain", Message: message}.line()
	messages = append(messages, outgoing{Cmd: "disconnect"}.line()...)
	if message != "" {
		word, _ := json.Marshal(message)
		messages = append(append(messages, word...), '\n')
	}
	return append(messages, outgoing{Cmd: "NODE_CLUSTER", Act: "disconnect", Seq: seq}.line()...)
}

// Program returns the line of a message, as JSON, for the program: its 'message' event. A
// message that Node itself would handle is an error.
func Program(message json.RawMessage) ([]byte, error) {
	var line bytes.Buffer
	if err := json.Compact(&line, message); err != nil {
		return nil, err
	}
	var keys map[string]any // not a struct, whose keys would also be CMD
	if json.Unmarshal(message, &keys) == nil {
		if cmd, ok := keys["cmd"].(string); ok && strings.HasPrefix(cmd, "NODE_") {
			return nil, errors.New("a message whose cmd begins with NODE_ is Node's own")
		}
	}
	line.WriteByte('\n')
	return line.Bytes(), nil
}
