package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		only, not []string
		addr      string
		want      bool
	}{
		{nil, nil, "127.0.0.1:8000", true},
		{nil, []string{"9229"}, "127.0.0.1:9229", false},
		{nil, []string{"9000-9300"}, "[::1]:9229", false},
		{nil, []string{"127.0.0.1:9229"}, "127.0.0.2:9229", true},
		{[]string{"8000"}, nil, "0.0.0.0:8000", true},
		{[]string{"8000"}, nil, "0.0.0.0:8001", false},
		{[]string{"[::1]:8000-8010"}, []string{"8005"}, "[::1]:8004", true},
		{[]string{"[::1]:8000-8010"}, []string{"8005"}, "[::1]:8005", false},
	} {
		r := NewRun()
		r.HoldOnly, r.NoHold = c.only, c.not
		holds, err := r.Holds()
		if err != nil || holds(netip.MustParseAddrPort(c.addr)) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, bad := range []string{"", "x", "70000", "5-4", "1.2.3:80", "host:80", "1-2-3"} {
		if a, err := parseAddresses(bad); err == nil {
			t.Errorf("%q is %+v", bad, a)
		}
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"30": 30 * time.Second, "0.5": 500 * time.Millisecond, "2m": 2 * time.Minute, "0": 0} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "x", "-1", "-1s", "1e300", "NaN"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func TestSlots(t *testing.T) {
	for s, want := range map[string]int{"1": 1, "16": 16, "max-1000": 1} {
		r := NewRun()
		r.Workers = s
		if got, err := r.Slots(); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "0", "-1", "x", "max+1", "maxx", "5000"} {
		r := NewRun()
		r.Workers = bad
		if got, err := r.Slots(); err == nil {
			t.Errorf("%q is %d", bad, got)
		}
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"app.js", "x.cjs"} {
		os.WriteFile(filepath.Join(dir, f), nil, 0o644)
	}
	for _, c := range []struct {
		args   []string
		want   []string
		script int
	}{
		{[]string{"app.js", "-p", "80"}, []string{"node", "app.js", "-p", "80"}, 1},
		{[]string{"node", "app.js"}, []string{"node", "app.js"}, 1},
		{[]string{"node", "--require", "./x.cjs", "app.js"}, []string{"node", "--require", "./x.cjs", "app.js"}, 3},
		{[]string{"node", "--require=./x.cjs", "app.js"}, []string{"node", "--require=./x.cjs", "app.js"}, 2},
		{[]string{"node", "app", "app.js"}, []string{"node", "app", "app.js"}, 0},
		{[]string{"node", "-e", "1", "app.js"}, []string{"node", "-e", "1", "app.js"}, 0},
		{[]string{"node", "--", "app.js"}, []string{"node", "--", "app.js"}, 2},
		{[]string{"gunicorn", "app.js"}, []string{"gunicorn", "app.js"}, 0},
	} {
		got, script, err := Command(c.args, dir)
		if err != nil || !slices.Equal(got, c.want) || script != c.script {
			t.Errorf("%q: %q, %d, %v", c.args, got, script, err)
		}
	}
	if _, _, err := Command([]string{"missing.js"}, dir); err == nil {
		t.Error("a missing script is no error")
	}
}

func TestSignal(t *testing.T) {
	for _, s := range []string{"auto", "TERM", "SIGQUIT", "int"} {
		r := NewRun()
		r.DrainSignal = s
		if _, err := r.Signal(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "KILL", "15", "NONSENSE"} {
		r := NewRun()
		r.DrainSignal = bad
		if got, err := r.Signal(); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}
