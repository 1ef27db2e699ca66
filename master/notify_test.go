package master

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseNotice(t *testing.T) {
	before := state{status: "warm"}
	for text, want := range map[string]notice{
		"READY=1":                                    {ready: true},
		"READY=1\nSTATUS=up\n":                       {ready: true, state: &state{status: "up"}},
		"STATUS=warm":                                {},
		"STATUS=a\x1b[2J\xff":                        {state: &state{status: "a?[2J?"}},
		"STOPPING=1\nREADY=0":                        {stopping: true},
		"RELOADING=1\nMONOTONIC_USEC=12":             {state: &state{status: "warm", reloading: true}},
		"RELOADING=1\nREADY=1":                       {ready: true},
		"MAINPID=1\nFDSTORE=1\nnonsense\n":           {stores: true},
		"WATCHDOG=1":                                 {alive: true},
		"WATCHDOG=trigger":                           {hung: true},
		"EXTEND_TIMEOUT_USEC=2000000":                {extend: 2 * time.Second},
		"EXTEND_TIMEOUT_USEC=1" + "0000000000000000": {extend: time.Hour},
		"EXTEND_TIMEOUT_USEC=-1":                     {},
		"":                                           {},
	} {
		got := parseNotice(text, before)
		if (got.state == nil) != (want.state == nil) || got.state != nil && *got.state != *want.state {
			t.Errorf("%q: state %+v, want %+v", text, got.state, want.state)
		}
		if got.state, want.state = nil, nil; got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// A flood becomes a few notices a second, and the last state is not lost.
func TestFloodOfNotices(t *testing.T) {
	now := time.Unix(0, 0)
	h := hearing{aliveEvery: time.Second}
	posted, last := 0, ""
	var again time.Time
	for i := range 100_000 { // in 10 s
		now = now.Add(100 * time.Microsecond)
		n := parseNotice(fmt.Sprintf("READY=1\nSTOPPING=1\nFDSTORE=1\nWATCHDOG=1\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=%d\nSTATUS=%d", 1000+i, i), h.said)
		var news notice
		if news, again = h.hear(now, n); news != (notice{}) {
			posted++
		}
		if news.state != nil {
			last = news.state.status
		}
	}
	if posted > 250 {
		t.Errorf("%d notices posted of 100000 in 10 s, want at most 250", posted)
	}
	if again.IsZero() {
		t.Fatal("the last state would be lost")
	}
	if news, _ := h.hear(again, notice{}); news.state == nil || news.state.status != "99999" {
		t.Errorf("after %q comes %+v, want the last status", last, news.state)
	}
}

// More time at the start does not swallow what is asked for in the drain, though
// that ends sooner.
func TestExtendTwice(t *testing.T) {
	now := time.Unix(0, 0)
	h := hearing{}
	if news, _ := h.hear(now, notice{extend: time.Hour}); news.extend != time.Hour {
		t.Fatalf("%+v", news)
	}
	news, again := h.hear(now.Add(time.Millisecond), notice{extend: 20 * time.Second})
	if news.extend != 0 || again.IsZero() {
		t.Fatalf("%+v, again %v: too often", news, again)
	}
	if news, _ = h.hear(again, notice{}); news.extend != 20*time.Second {
		t.Fatalf("%+v", news)
	}
}

func TestDescends(t *testing.T) {
	if !descends(os.Getpid(), os.Getppid()) || !descends(os.Getpid(), os.Getpid()) {
		t.Error("a child does not descend from its parent")
	}
	if descends(1, os.Getpid()) || descends(0, os.Getpid()) || descends(1<<22, os.Getpid()) {
		t.Error("a stranger descends from us")
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=\xff")
	f.Fuzz(func(t *testing.T, s string) {
		n := parseNotice(s, state{})
		if n.state != nil && (len(n.state.status) > 3*statusMost || strings.ContainsAny(n.state.status, "\n\x1b")) || n.extend < 0 || n.extend > time.Hour {
			t.Errorf("%q: %+v", s, n)
		}
	})
}
