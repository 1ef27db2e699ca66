package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2/hpack"
)

// One unary call of grpc.health.v1.Health/Check is a request and its answer on one stream of
// HTTP/2: less code here than a client library is in the binary (google.golang.org/grpc: 9 MB).

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The frames that are known (RFC 9113, 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameContinuation = 9

	flagEnd        = 1 // END_STREAM; of SETTINGS and PING: ACK
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 32

	maxFrame  = 16 << 10
	maxFrames = 200
)

func (c *Check) grpc(conn io.ReadWriter) error {
	host := c.Host
	if host == "" {
		host = "localhost"
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/Check"}, {":authority", host},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "handoff-health"}} {
		enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	message := []byte(nil)
	if c.Target != "" { // HealthCheckRequest.service
		message = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(c.Target))), c.Target...)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	request := []byte(preface)
	request = append(request, frame(frameSettings, 0, 0, nil)...)
	request = append(request, frame(frameHeaders, flagEndHeaders, 1, head.Bytes())...)
	request = append(request, frame(frameData, flagEnd, 1, body)...)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	a := answer{headers: map[string]string{}}
	if err := a.read(conn); err != nil {
		return err
	}
	return a.judge()
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	f := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(f, stream), payload...)
}

// answer is what a server has said on the stream.
type answer struct {
	headers map[string]string // and trailers
	block   []byte            // headers that are not complete
	body    []byte
	ended   bool // the stream, with the headers that are not complete
}

var errNotGRPC = errors.New("the answer is not HTTP/2: does it speak gRPC without TLS?")

// read reads frames until the stream ends.
func (a *answer) read(conn io.ReadWriter) error {
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if len(a.headers) < 100 {
			a.headers[f.Name] = f.Value
		}
	})
	decoder.SetMaxStringLength(maxFrame)
	for n := range maxFrames {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if size > maxFrame || n == 0 && head[3] != frameSettings {
			return errNotGRPC
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(conn, payload); err != nil {
			return err
		}
		done, err := a.frame(conn, decoder, head[3], head[4], binary.BigEndian.Uint32(head[5:])&(1<<31-1), payload)
		if done || err != nil {
			return err
		}
	}
	return errors.New("its answer does not end")
}

// frame takes one frame; done: the stream has ended.
func (a *answer) frame(conn io.Writer, decoder *hpack.Decoder, kind, flags byte, stream uint32, payload []byte) (done bool, err error) {
	switch kind {
	case frameSettings, framePing:
		if flags&flagEnd == 0 {
			if kind == frameSettings {
				payload = nil
			}
			_, err = conn.Write(frame(kind, flagEnd, 0, payload))
		}
		return false, err
	case frameGoAway:
		return false, errors.New("it ended the connection (GOAWAY)")
	case frameReset:
		return false, errors.New("it reset the call (RST_STREAM)")
	case frameData, frameHeaders, frameContinuation:
		if stream != 1 {
			return false, errNotGRPC
		}
	default:
		return false, nil
	}
	ends := flags&flagEnd != 0 && kind != frameContinuation
	if payload, err = unpad(kind, flags, payload); err != nil {
		return false, err
	}
	if kind == frameData {
		if a.body = append(a.body, payload...); len(a.body) > maxBody {
			return false, errors.New("its answer is too long")
		}
		return ends, nil
	}
	if a.block = append(a.block, payload...); len(a.block) > maxHead {
		return false, errors.New("its answer is too long")
	}
	a.ended = a.ended || ends
	if flags&flagEndHeaders == 0 {
		return false, nil
	}
	_, err = decoder.Write(a.block)
	if err == nil {
		err = decoder.Close()
	}
	a.block = nil
	return a.ended, err
}

// unpad removes padding and priority.
func unpad(kind, flags byte, payload []byte) ([]byte, error) {
	pad := 0
	if flags&flagPadded != 0 && kind != frameContinuation {
		if len(payload) == 0 {
			return nil, errNotGRPC
		}
		pad, payload = int(payload[0]), payload[1:]
	}
	if flags&flagPriority != 0 && kind == frameHeaders {
		if len(payload) < 5 {
			return nil, errNotGRPC
		}
		payload = payload[5:]
	}
	if pad > len(payload) {
		return nil, errNotGRPC
	}
	return payload[:len(payload)-pad], nil
}

// judge decides by what was said.
func (a *answer) judge() error {
	switch code := a.headers["grpc-status"]; {
	case a.headers[":status"] != "200":
		return fmt.Errorf("HTTP status %s", short(a.headers[":status"]))
	case code == "5":
		return errors.New("unknown service (NOT_FOUND)")
	case code == "12":
		return errors.New("the program has no grpc.health.v1 (UNIMPLEMENTED)")
	case code != "0" && code != "":
		return fmt.Errorf("gRPC status %s%s", short(code), said([]byte(a.headers["grpc-message"])))
	case len(a.body) < 5 || a.body[0] != 0 || int(binary.BigEndian.Uint32(a.body[1:])) != len(a.body)-5:
		return errors.New("it has no answer")
	}
	switch status := servingStatus(a.body[5:]); status {
	case 1:
		return nil
	case 2:
		return errors.New("NOT_SERVING")
	case 3:
		return errors.New("SERVICE_UNKNOWN")
	default:
		return fmt.Errorf("status %d", status)
	}
}

func short(s string) string { return s[:min(len(s), 20)] }

// servingStatus reads HealthCheckResponse.status, 0 if there is none.
func servingStatus(m []byte) (status uint64) {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 {
			return 0
		}
		m = m[n:]
		value, n := binary.Uvarint(m)
		if n <= 0 {
			return 0
		}
		m = m[n:]
		switch {
		case tag == 1<<3:
			status = value
		case tag&7 == 2 && value <= uint64(len(m)):
			m = m[value:]
		case tag&7 != 0:
			return 0
		}
	}
	return status
}
