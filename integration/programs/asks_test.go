package programs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// answerWithin is how long an answer may take.
const answerWithin = 10 * time.Second

// lineOf asks with some bytes, and expects an answer that ends as wanted.
func lineOf(network, question, want string) asks {
	return func(addr string) (conversation, error) {
		c, err := net.DialTimeout(network, addr, answerWithin)
		if err != nil {
			return nil, err
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) // as in internal/load: ports are not used up
		}
		switch c := c.(type) {
		case *net.TCPConn:
			return &tcpLine{c, question, want}, nil
		case *net.UnixConn:
			return &unixLine{c, question, want}, nil
		default:
			return &plainLine{c, question, want}, nil
		}
	}
}

type tcpLine struct {
	*net.TCPConn
	question, want string
}

type unixLine struct {
	*net.UnixConn
	question, want string
}

type plainLine struct {
	net.Conn
	question, want string
}

func (l *tcpLine) ask() error   { return exchange(l.TCPConn, l.question, l.want) }
func (l *unixLine) ask() error  { return exchange(l.UnixConn, l.question, l.want) }
func (l *plainLine) ask() error { return exchange(l.Conn, l.question, l.want) }

func exchange(c net.Conn, question, want string) error {
	c.SetDeadline(time.Now().Add(answerWithin))
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	b, n := make([]byte, 4096), 0
	for {
		k, err := c.Read(b[n:])
		n += k
		if strings.Contains(string(b[:n]), want) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == len(b) {
			return fmt.Errorf("%q, want %q", b, want)
		}
	}
}

// postgres opens a session on pgbouncer's console, and asks for its version.
func postgres(addr string) (conversation, error) {
	c, err := net.DialTimeout("tcp", addr, answerWithin)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	tcp.SetLinger(0)
	hello := []byte("\x00\x03\x00\x00user\x00any\x00database\x00pgbouncer\x00\x00")
	ready := "Z\x00\x00\x00\x05I"
	if err := exchange(tcp, string(binary.BigEndian.AppendUint32(nil, uint32(4+len(hello))))+string(hello), ready); err != nil {
		c.Close()
		return nil, err
	}
	const query = "SHOW VERSION;\x00"
	return &tcpLine{tcp, "Q" + string(binary.BigEndian.AppendUint32(nil, uint32(4+len(query)))) + query, ready}, nil
}

// dnsQuery asks for the address of www.example.test, by UDP; kept: from the same port again.
func dnsQuery(addr string) (conversation, error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	return &query{Conn: c}, nil
}

type query struct {
	net.Conn
	id uint16
}

func (q *query) ask() error {
	q.id += 7
	msg := binary.BigEndian.AppendUint16(nil, q.id)
	msg = append(msg, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for _, label := range []string{"www", "example", "test"} {
		msg = append(append(msg, byte(len(label))), label...)
	}
	msg = append(msg, 0, 0, 1, 0, 1)
	q.SetDeadline(time.Now().Add(answerWithin))
	if _, err := q.Write(msg); err != nil {
		return err
	}
	b := make([]byte, 1500)
	n, err := q.Read(b)
	if err != nil {
		return err
	}
	if n < 12 || binary.BigEndian.Uint16(b) != q.id || b[2]&0x80 == 0 || b[3]&15 != 0 || binary.BigEndian.Uint16(b[6:]) == 0 {
		return fmt.Errorf("an answer that is not one: % x", b[:n])
	}
	return nil
}

// grpcUnary calls /any.Any/Call with an empty message, over HTTP/2 without TLS.
func grpcUnary(addr string) (conversation, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols}
	return &call{tr, "http://" + addr + "/any.Any/Call"}, nil
}

type call struct {
	tr  *http.Transport
	url string
}

func (c *call) ask() error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, io.NopCloser(bytes.NewReader(make([]byte, 5)))) // cannot be sent twice
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	resp, err := c.tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if s := resp.Trailer.Get("Grpc-Status"); s != "0" || len(b) < 5 {
		return errors.New("grpc-status " + s + " " + resp.Trailer.Get("Grpc-Message"))
	}
	return nil
}

func (c *call) Close() error { c.tr.CloseIdleConnections(); return nil }

// websocketEcho opens a websocket, sends a line and expects it back.
func websocketEcho(addr string) (conversation, error) {
	c, err := net.DialTimeout("tcp", addr, answerWithin)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	tcp.SetLinger(0)
	err = exchange(tcp, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", "\r\n\r\n")
	if err != nil {
		c.Close()
		return nil, err
	}
	return &tcpLine{tcp, "\x81\x86\x00\x00\x00\x00hello\n", "hello"}, nil
}
