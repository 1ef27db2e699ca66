package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const testTimeout = 20 * time.Second

// serve answers each connection by f, which owns it.
func serve(t *testing.T, f func(n int, c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(n, c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// answer reads one request and writes text.
func answer(c *net.TCPConn, text string) {
	defer c.Close()
	if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		io.WriteString(c, text)
	}
}

const good = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"

// Each fault of a server is counted by its class, and nothing is retried.
func TestClasses(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   Class
		server func(n int, c *net.TCPConn)
	}{
		{"all is well", "", func(_ int, c *net.TCPConn) { answer(c, good) }},
		{"reset", Reset, func(_ int, c *net.TCPConn) { c.SetLinger(0); answer(c, "") }},
		{"closed without an answer", EOF, func(_ int, c *net.TCPConn) { answer(c, "") }},
		{"closed in the middle", EOF, func(_ int, c *net.TCPConn) { answer(c, good[:len(good)-1]) }},
		{"no answer", Timeout, func(_ int, c *net.TCPConn) { io.Copy(io.Discard, c); c.Close() }},
		{"another status", Status, func(_ int, c *net.TCPConn) { answer(c, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") }},
		{"no HTTP", Other, func(_ int, c *net.TCPConn) { answer(c, "nonsense\r\n\r\n") }},
		{"nobody listens", Refused, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := "127.0.0.1:1" // tcpmux
			if c.server != nil {
				addr = serve(t, c.server)
			}
			run := Start(Config{Addr: addr, Clients: 2, Timeout: 200 * time.Millisecond})
			if !run.Await(4, testTimeout) {
				t.Fatal("the load does not go on")
			}
			r := run.Stop()
			if c.want == "" && r.Lost() != 0 || c.want != "" && (r.Lost() != r.Requests || r.Failed[c.want] != r.Requests) {
				t.Errorf("want %q: %v", c.want, r)
			}
		})
	}
}

// A connection that an older generation answers is a failure: of one client in a
// closed loop, of any with Follow.
func TestOrder(t *testing.T) {
	generations := []int{1, 2, 1} // the last for all that follow: some are sent when 2 has been seen
	for _, c := range []struct {
		name string
		cfg  Config
		want bool
	}{
		{"closed loop", Config{Clients: 1}, true},
		{"paced", Config{Rate: 200}, false},
		{"paced, followed", Config{Rate: 200, Follow: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var served atomic.Int64
			c.cfg.Addr = serve(t, func(_ int, conn *net.TCPConn) {
				g := generations[min(int(served.Add(1)-1), len(generations)-1)]
				answer(conn, "HTTP/1.1 200 OK\r\nX-Generation: "+strconv.Itoa(g)+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			})
			run := Start(c.cfg)
			if !run.Await(40, testTimeout) {
				t.Fatal("the load does not go on")
			}
			r := run.Stop()
			if got := r.Failed[Order] > 0; got != c.want || r.Failed[Order] != r.Lost() {
				t.Errorf("order counts %v, want %v: %v", got, c.want, r)
			}
		})
	}
}

// A paced load keeps its rate whatever the server does; one that is answered late is
// late from when it was due.
func TestRate(t *testing.T) {
	hold := make(chan struct{})
	var held atomic.Int64
	addr := serve(t, func(_ int, c *net.TCPConn) {
		held.Add(1)
		<-hold
		answer(c, good)
	})
	run := Start(Config{Addr: addr, Rate: 500})
	for deadline := time.After(testTimeout); held.Load() < 50; { // 16 clients in a closed loop would have stopped at 16
		select {
		case <-deadline:
			t.Fatalf("%d requests were sent", held.Load())
		case <-time.After(time.Millisecond):
		}
	}
	close(hold)
	run.Await(50, testTimeout)
	if r := run.Stop(); r.Lost() > 0 || r.Latency.Max() < 50_000 {
		t.Errorf("want no loss, and a request that waited for the server: %v", r)
	}
}

// A load that sheds has no more requests under way than it has clients.
func TestShed(t *testing.T) {
	for _, mode := range []Mode{New, KeepAlive} {
		hold := make(chan struct{})
		var now, most atomic.Int64
		addr := serve(t, func(_ int, c *net.TCPConn) {
			most.Store(max(most.Load(), now.Add(1)))
			<-hold
			now.Add(-1)
			answer(c, strings.Replace(good, "\r\n", "\r\nConnection: close\r\n", 1)) // or the next request would be reset
		})
		run := Start(Config{Addr: addr, Mode: mode, Rate: 2000, Clients: 3, Shed: true})
		for deadline := time.After(testTimeout); now.Load() < 3; {
			select {
			case <-deadline:
				t.Fatalf("%d requests were sent", now.Load())
			case <-time.After(time.Millisecond):
			}
		}
		run.Await(1, 50*time.Millisecond) // some that are due meanwhile
		close(hold)
		run.Await(20, testTimeout)
		if r := run.Stop(); r.Lost() > 0 || most.Load() > 3 {
			t.Errorf("%d at once, want 3 at most: %v", most.Load(), r)
		}
	}
}

// Parts divide what was seen, and Stop adds them up.
func TestParts(t *testing.T) {
	addr := serve(t, func(_ int, c *net.TCPConn) { answer(c, good) })
	run := Start(Config{Addr: addr, Clients: 1, Part: "one"})
	run.Await(5, testTimeout)
	run.Begin("two")
	run.Await(5, testTimeout)
	run.Count(Failure{Class: Inside, Err: fmt.Errorf("seen elsewhere")})
	all := run.Stop()
	parts := run.Parts()
	one, two := parts[0].Result(), parts[1].Result()
	if len(parts) != 2 || one.Requests < 5 || one.Lost() != 0 || two.Lost() != 1 || one.Requests+two.Requests != all.Requests || all.Failed[Inside] != 1 {
		t.Errorf("%v\n%v\n%v", one, two, all)
	}
}

// A kept connection's requests are counted apart from the first on each, and its longest answer;
// a slow reader takes a while for what came at once.
func TestKept(t *testing.T) {
	addr := serve(t, func(_ int, c *net.TCPConn) { // two answers, then the end
		defer c.Close()
		in := bufio.NewReader(c)
		for i := range 3 {
			if _, err := http.ReadRequest(in); err == nil && i < 2 {
				io.WriteString(c, good)
			}
		}
	})
	run := Start(Config{Addr: addr, Clients: 1, Mode: KeepAlive, Slow: 5 * time.Millisecond, Timeout: testTimeout})
	if !run.Await(6, testTimeout) {
		t.Fatal("the load does not go on")
	}
	r := run.Stop()
	if first := r.Requests - r.Kept; first != r.Connections || r.Kinds[Kind{EOF, true, Answer}] != r.Lost() || r.Lost() == 0 {
		t.Errorf("%d kept of %v", r.Kept, r)
	}
	if least := time.Duration(len(good)/16) * 5 * time.Millisecond; r.Longest < least {
		t.Errorf("the longest answer took %v, want at least %v", r.Longest, least)
	}
}

// A connection that is there for a while counts as kept at its first request; one that the server
// has closed by then is no failure.
func TestLate(t *testing.T) {
	addr := serve(t, func(n int, c *net.TCPConn) {
		if n%4 == 0 {
			c.Close()
			return
		}
		answer(c, good)
	})
	run := Start(Config{Addr: addr, Clients: 1, Late: 50 * time.Millisecond, Timeout: testTimeout})
	if !run.Await(4, testTimeout) {
		t.Fatal("the load does not go on")
	}
	if r := run.Stop(); r.Lost() != 0 || r.IdleClosed == 0 || r.Kept == 0 || r.Kept+r.IdleClosed != r.Requests {
		t.Errorf("%d kept, %d closed while idle of %v", r.Kept, r.IdleClosed, r)
	}
}
