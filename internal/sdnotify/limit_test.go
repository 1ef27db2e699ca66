package sdnotify

import (
	"fmt"
	"testing"
	"time"
)

// A flood becomes a few notices a second, and the last state is not lost.
func TestFloodOfNotices(t *testing.T) {
	now := time.Unix(0, 0)
	l := Limiter{AliveEvery: time.Second}
	posted, last := 0, ""
	var again time.Time
	for i := range 100_000 { // in 10 s
		now = now.Add(100 * time.Microsecond)
		n := Parse(fmt.Sprintf("READY=1\nSTOPPING=1\nFDSTORE=1\nWATCHDOG=1\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=%d\nX_REQUESTS=%d\nSTATUS=%d", 1000+i, i, i), l.State())
		var news Notice
		if news, again = l.Hear(now, n); news != (Notice{}) {
			posted++
		}
		if news.State != nil {
			last = news.State.Status
		}
	}
	if posted > 350 {
		t.Errorf("%d notices posted of 100000 in 10 s, want at most 350", posted)
	}
	if again.IsZero() {
		t.Fatal("the last state would be lost")
	}
	if news, _ := l.Hear(again, Notice{}); news.State == nil || news.State.Status != "99999" {
		t.Errorf("after %q comes %+v, want the last status", last, news.State)
	}
}

// More time at the start does not swallow what is asked for in the drain, though
// that ends sooner.
func TestExtendTwice(t *testing.T) {
	now := time.Unix(0, 0)
	var l Limiter
	if news, again := l.Hear(now, Notice{Extend: time.Hour}); news.Extend != time.Hour || !again.IsZero() {
		t.Fatalf("%+v, again %v", news, again)
	}
	news, again := l.Hear(now.Add(time.Millisecond), Notice{Extend: 20 * time.Second})
	if news.Extend != 0 || again != now.Add(extendEvery) {
		t.Fatalf("%+v, again %v: too often", news, again)
	}
	if news, again = l.Hear(again, Notice{}); news.Extend != 20*time.Second || !again.IsZero() {
		t.Fatalf("%+v, again %v", news, again)
	}
}

// Two things are late: Hear is to be called for the earlier.
func TestLimiterComesBackForTheEarlier(t *testing.T) {
	now := time.Unix(100, 0)
	var l Limiter
	l.Hear(now, Notice{State: &State{Status: "a"}})
	l.Hear(now.Add(50*time.Millisecond), Notice{Extend: time.Second})
	_, again := l.Hear(now.Add(60*time.Millisecond), Notice{Extend: 2 * time.Second, State: &State{Status: "b"}})
	if want := now.Add(stateEvery); again != want {
		t.Fatalf("again at %v, want %v", again, want)
	}
	news, again := l.Hear(again, Notice{})
	if news.State == nil || news.State.Status != "b" || news.Extend != 0 || again != now.Add(50*time.Millisecond+extendEvery) {
		t.Fatalf("%+v, again %v", news, again)
	}
}

func TestMayAsk(t *testing.T) {
	now := time.Unix(0, 0)
	var l Limiter
	answered := 0
	for range 10_000 { // in 2 s
		if now = now.Add(200 * time.Microsecond); l.MayAsk(now) {
			answered++
		}
	}
	if answered < 2*maxAsks || answered > 3*maxAsks {
		t.Errorf("%d questions of 10000 in 2 s answered, want %d in each second", answered, maxAsks)
	}
}
