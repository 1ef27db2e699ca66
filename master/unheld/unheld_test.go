package unheld

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"handoff/master/descendants"
)

// Who has the port is named; that it is a worker of the service, if it is.
func TestInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stderr := []string{fmt.Sprintf("Error: listen EADDRINUSE: address already in use %v", l.Addr())}
	ours := func() []Worker { return []Worker{{0, nil}, {3, []int{os.Getpid()}}} }
	nobodys := func() []Worker { return []Worker{{0, []int{1}}} }
	for _, c := range []struct {
		refused string
		stderr  []string
		workers func() []Worker
		want    string // part of it
		hint    bool
	}{
		{"", stderr, ours, "listens there: it is the worker of slot 3, ", true},
		{"", stderr, nobodys, fmt.Sprintf("(pid %d) listens there", os.Getpid()), false},
		{"refused", stderr, ours, "refused", false},
		{"", []string{"no database"}, ours, "", false},
		{"", []string{"Address already in use"}, ours, "address already in use, as the last lines", false},
	} {
		got := InUse(c.refused, c.stderr, c.workers)
		if !strings.Contains(got, c.want) || strings.HasSuffix(got, hint) != c.hint || c.want == "" && got != "" {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestListening(t *testing.T) {
	if got := listening([]descendants.Holding{{Listening: []uint16{1, 2}}, {}, {Listening: []uint16{2}}}); strings.Join(got, " ") != "1 2" {
		t.Error(got)
	}
}
