// Command http3client asks a server without a pause, by HTTP/3, until its stdin ends, and
// counts what is not answered as it must be. Nothing is asked twice by it: http3.Transport
// does what the protocol says of a GOAWAY, and no more.
//
//	fresh    a connection for each request
//	kept     one connection, as long as its server lets it
//	moved    the same, and the client's port changes every 10 requests, as behind a NAT that
//	         forgets: the old port is closed
//	probed   the same by QUIC's own migration, which changes the connection id, too
//	slow     a response of two seconds; the port changes in the middle, as with moved
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

type count struct {
	Asked, Lost   int
	Connections   int // that were begun
	Moves         int // to another port
	Generations   int // that have answered
	LongestAnswer time.Duration
	Errors        []string `json:",omitempty"`
}

type counts struct {
	sync.Mutex
	of   map[string]*count
	seen map[string]map[string]bool
}

func (c *counts) change(kind string, f func(*count)) {
	c.Lock()
	defer c.Unlock()
	if c.of[kind] == nil {
		c.of[kind], c.seen[kind] = &count{}, map[string]bool{}
	}
	f(c.of[kind])
}

func main() {
	addr, each := flag.String("addr", "127.0.0.1:8443", ""), flag.Int("each", 2, "clients of each kind")
	kinds, limit := flag.String("kinds", "fresh,kept,moved,probed,slow", ""), flag.Duration("limit", 20*time.Second, "of a request")
	flag.Parse()
	all := &counts{of: map[string]*count{}, seen: map[string]map[string]bool{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, kind := range strings.Split(*kinds, ",") {
		for range *each {
			c := &client{kind: kind, addr: *addr, limit: *limit, all: all}
			wg.Go(func() { c.run(stop) })
		}
	}
	fmt.Println("asking")
	io.Copy(io.Discard, os.Stdin)
	close(stop)
	wg.Wait()
	json.NewEncoder(os.Stdout).Encode(all.of)
}

type client struct {
	kind, addr string
	limit      time.Duration
	all        *counts
	conn       *quic.Conn      // the last one
	socket     *changing       // of moved
	transport  *quic.Transport // of probed
}

func (c *client) run(stop <-chan struct{}) {
	var t *http3.Transport
	for i := 1; ; i++ {
		select {
		case <-stop:
			if t != nil {
				t.Close()
			}
			return
		default:
		}
		if t == nil {
			t = &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Dial: c.dial,
				QUICConfig: &quic.Config{MaxIdleTimeout: 30 * time.Second}}
			if c.kind == "slow" { // else its server learns of the other port when it next sends
				t.QUICConfig.KeepAlivePeriod = 200 * time.Millisecond
			}
		}
		start := time.Now()
		generation, err := c.ask(t, i)
		took := time.Since(start)
		c.all.change(c.kind, func(n *count) {
			n.Asked++
			n.LongestAnswer = max(n.LongestAnswer, took)
			if err != nil {
				n.Lost++
				if len(n.Errors) > 20 {
					return
				}
				n.Errors = append(n.Errors, fmt.Sprintf("%s after %v: %v", time.Now().Format("15:04:05.000"), took.Round(time.Millisecond), err))
				return
			}
			c.all.seen[c.kind][generation] = true
			n.Generations = len(c.all.seen[c.kind])
		})
		if c.kind == "fresh" || err != nil {
			t.Close()
			t = nil
		} else if c.kind != "slow" && i%10 == 0 {
			c.move()
		}
	}
}

func (c *client) ask(t *http3.Transport, i int) (generation string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	var body io.Reader
	method, path, want := http.MethodGet, "/", 1
	if c.kind == "slow" {
		path, want = "/slow", 20
	} else if i%3 == 0 {
		method, body = http.MethodPost, strings.NewReader(strings.Repeat("x", 3000))
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.addr+path, body)
	if err != nil {
		return "", err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	generation = res.Header.Get("Generation")
	lines := 0
	for r := bufio.NewScanner(res.Body); err == nil; lines++ {
		if !r.Scan() {
			err = r.Err()
			break
		}
		if c.kind == "slow" && lines%5 == 4 {
			c.move()
		}
	}
	if err == nil && (res.StatusCode != 200 || lines < want) {
		err = fmt.Errorf("status %d, %d lines", res.StatusCode, lines)
	}
	return generation, err
}

// dial begins a connection, from a socket of its own.
func (c *client) dial(ctx context.Context, addr string, cfg *tls.Config, q *quic.Config) (*quic.Conn, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	c.all.change(c.kind, func(n *count) { n.Connections++ })
	u, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	tr := &quic.Transport{Conn: u}
	if c.kind == "moved" || c.kind == "slow" {
		c.socket = newChanging(u)
		tr.Conn = c.socket
	}
	c.conn, err = tr.DialEarly(ctx, to, cfg, q)
	end := func() { // in that order: tr.Close waits for the end of a read
		tr.Conn.Close()
		tr.Close()
	}
	if err != nil {
		end()
		return nil, err
	}
	context.AfterFunc(c.conn.Context(), func() { time.AfterFunc(time.Second, end) }) // after its last packet
	return c.conn, nil
}

// move changes the client's port, if it is of a kind that does.
func (c *client) move() {
	var err error
	switch {
	case c.conn == nil || c.conn.Context().Err() != nil:
		return
	case c.socket != nil:
		err = c.socket.change()
	case c.kind == "probed":
		err = c.probe()
	default:
		return
	}
	if err != nil {
		if c.conn.Context().Err() != nil {
			return // its server has closed it meanwhile
		}
		c.all.change(c.kind, func(n *count) { n.Errors = append(n.Errors, "move: "+err.Error()) })
		return
	}
	c.all.change(c.kind, func(n *count) { n.Moves++ })
}

func (c *client) probe() error {
	u, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	tr := &quic.Transport{Conn: u}
	end := func() {
		tr.Close()
		u.Close()
	}
	p, err := c.conn.AddPath(tr)
	if err != nil {
		end()
		return err
	}
	ctx, cancel := context.WithTimeout(c.conn.Context(), c.limit)
	defer cancel()
	if err = p.Probe(ctx); err == nil {
		err = p.Switch()
	}
	if err != nil {
		end()
		return err
	}
	context.AfterFunc(c.conn.Context(), func() { time.AfterFunc(time.Second, end) })
	return nil
}

// changing is a socket whose port can be changed under its user, as a NAT does.
type changing struct {
	mu   sync.Mutex // guards now
	now  *net.UDPConn
	came chan packet
	done chan struct{} // closed by Close
	once sync.Once
}

type packet struct {
	b    []byte
	from net.Addr
}

func newChanging(u *net.UDPConn) *changing {
	c := &changing{now: u, came: make(chan packet, 100), done: make(chan struct{})}
	go c.read(u)
	return c
}

func (c *changing) read(u *net.UDPConn) { // ends when it is closed
	for {
		b := make([]byte, 2000)
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		select {
		case c.came <- packet{b[:n], from}:
		case <-c.done:
			return
		}
	}
}

func (c *changing) change() error {
	u, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Close()
	c.now = u
	go c.read(u)
	return nil
}

func (c *changing) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.came:
		return copy(b, p.b), p.from, nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *changing) WriteTo(b []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.WriteTo(b, to)
}

func (c *changing) Close() error {
	err := errors.New("closed already")
	c.once.Do(func() {
		close(c.done)
		c.mu.Lock()
		defer c.mu.Unlock()
		err = c.now.Close()
	})
	return err
}

func (c *changing) LocalAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.LocalAddr()
}

// quic-go sets no deadline that it would wait for.
func (c *changing) SetDeadline(time.Time) error      { return nil }
func (c *changing) SetReadDeadline(time.Time) error  { return nil }
func (c *changing) SetWriteDeadline(time.Time) error { return nil }
