package admin

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"handoff/internal/api"
)

// Whoever opens hundreds of connections, and begins requests on them that never end, takes
// a few descriptors, and nobody's answer.
func TestPublicCrowd(t *testing.T) {
	s := &script{}
	s.answers(nil, api.Status{Name: "web", State: api.StateServing, Slots: 1, Ready: 1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(Public{}.Serve(l, s, slog.New(slog.DiscardHandler)))
	descriptors := func() int { fds, _ := os.ReadDir("/proc/self/fd"); return len(fds) }
	before := descriptors()
	const rogues = 400
	var conns []net.Conn
	for i := range rogues {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		switch i % 3 {
		case 0: // says nothing
		case 1:
			fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\nA: ")
		case 2:
			fmt.Fprint(c, "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
		}
		if i%50 == 0 {
			probe, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			probe.SetDeadline(time.Now().Add(30 * time.Second))
			fmt.Fprint(probe, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if b, err := io.ReadAll(probe); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
				t.Fatalf("after %d: %q %v", i, b, err)
			}
			probe.Close()
			// What came before it was accepted before it; those that were closed for it may end
			// a little later.
			if n := descriptors() - before - len(conns); n > 3*maxConns {
				t.Fatalf("after %d: %d descriptors of the server's are open", i, n)
			}
		}
	}
	// A body is refused before it is read.
	c := conns[rogues-1]
	c.Close()
	c, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
		t.Fatal(resp, err)
	}
}
