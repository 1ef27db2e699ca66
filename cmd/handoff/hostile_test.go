package main

import (
	"bytes"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"handoff/internal/admin"
	"handoff/internal/api"
)

// A socket that nobody answers on, and one whose name would steer a terminal, as another
// user may have it where root looks, do not hold up `handoff ls`.
func TestListOfHostileSockets(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(admin.DirVariable, dir)
	for _, name := range []string{"hangs", "x\x1b]0;y\a"} {
		l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	list, names, hang := statuses(50 * time.Millisecond)
	if len(list) > 0 || len(names) > 0 || !slices.Equal(hang, []string{"hangs"}) {
		t.Errorf("%v, %q; hanging: %q", list, names, hang)
	}
}

// What answers to root may be another user's.
func TestStatusSteersNoTerminal(t *testing.T) {
	s := api.Status{Name: "web\x1b[2J", LastError: "\x1b]0;title\a", Workers: []api.WorkerStatus{{Status: "\u009b5n"}}}
	var b bytes.Buffer
	printStatus(&b, s, nil, time.Now())
	if strings.ContainsAny(b.String(), "\x1b\a\u009b") {
		t.Errorf("%q", b.String())
	}
}
