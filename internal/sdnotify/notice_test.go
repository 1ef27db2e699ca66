package sdnotify

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	before := State{Status: "warm"}
	for text, want := range map[string]Notice{
		"READY=1":                                    {Ready: true},
		"READY=1\nSTATUS=up\n":                       {Ready: true, State: &State{Status: "up"}},
		"STATUS=warm":                                {},
		"STATUS=a\x1b[2J\xff":                        {State: &State{Status: "a?[2J?"}},
		"STOPPING=1\nREADY=0":                        {Stopping: true},
		"RELOADING=1\nMONOTONIC_USEC=12":             {State: &State{Status: "warm", Reloading: true}},
		"RELOADING=1\nREADY=1":                       {Ready: true},
		"MAINPID=1\nFDSTORE=1\nnonsense\n":           {Stores: true},
		"WATCHDOG=1":                                 {Alive: true},
		"WATCHDOG=trigger":                           {Hung: true},
		"EXTEND_TIMEOUT_USEC=2000000":                {Extend: 2 * time.Second},
		"EXTEND_TIMEOUT_USEC=1" + "0000000000000000": {Extend: time.Hour},
		"EXTEND_TIMEOUT_USEC=-1":                     {},
		"X_REQUESTS=12":                              {Requests: 12},
		"X_REQUESTS=-12":                             {},
		"":                                           {},
	} {
		got := Parse(text, before)
		if (got.State == nil) != (want.State == nil) || got.State != nil && *got.State != *want.State {
			t.Errorf("%q: state %+v, want %+v", text, got.State, want.State)
		}
		if got.State, want.State = nil, nil; got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"warm":                         "warm",
		"\x1b]0;title\a":               "?]0;title?",
		strings.Repeat("x", 300):       strings.Repeat("x", maxStatus),
		strings.Repeat("é", 150):       strings.Repeat("é", maxStatus/2),
		"x" + strings.Repeat("é", 150): "x" + strings.Repeat("é", maxStatus/2-1) + "?",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=\xff")
	f.Fuzz(func(t *testing.T, s string) {
		n := Parse(s, State{})
		if n.State != nil && (len(n.State.Status) > 3*maxStatus || strings.ContainsAny(n.State.Status, "\n\x1b")) || n.Extend < 0 || n.Extend > time.Hour {
			t.Errorf("%q: %+v", s, n)
		}
	})
}
