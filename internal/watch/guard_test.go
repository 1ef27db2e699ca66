package watch

import (
	"slices"
	"testing"
	"time"
)

// world plays reloads of a second each, and what changes after them.
type world struct {
	t    *testing.T
	g    Guard
	now  time.Time
	last Reload
}

const boot = time.Second

// change has files change at a time after the last reload began (or from now, if there was none);
// they are reported a second later.
func (w *world) change(delays map[string]time.Duration) Decision {
	w.t.Helper()
	c := Changes{Files: map[string]time.Time{}}
	from := w.last.Began
	if from.IsZero() {
		from = w.now
	}
	for name, d := range delays {
		at := from.Add(d)
		if c.Files[name] = at; c.First == "" || at.Before(c.Files[c.First]) {
			c.First = name
		}
		if at.Add(time.Second).After(w.now) {
			w.now = at.Add(time.Second)
		}
	}
	return w.report(c)
}

func (w *world) report(c Changes) Decision {
	d := w.g.Changed(w.now, c, w.last)
	if d.Reload {
		w.last = Reload{Began: w.now.Add(time.Millisecond), Ended: w.now.Add(boot)}
	}
	return d
}

func newWorld(t *testing.T) *world {
	return &world{t: t, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
}

// A file that the workers write when they start is left out after three reloads, and
// nothing else is.
func TestGuardLeavesOutWhatWorkersWrite(t *testing.T) {
	w := newWorld(t)
	if d := w.change(map[string]time.Duration{"app.js": 0}); !d.Reload || d.First != "app.js" {
		t.Fatalf("%+v", d)
	}
	for i := range 2 {
		if d := w.change(map[string]time.Duration{"started": 300*time.Millisecond + time.Duration(i)*50*time.Millisecond}); !d.Reload || len(d.Omit) > 0 || d.First != "started" {
			t.Fatalf("%d: %+v", i, d)
		}
	}
	d := w.change(map[string]time.Duration{"started": 320 * time.Millisecond, "lib.js": 100 * time.Millisecond})
	if !d.Reload || d.First != "lib.js" || d.Files != 1 || !slices.Equal(d.Omit, []string{"started"}) {
		t.Fatalf("%+v", d)
	}
	if d := w.change(map[string]time.Duration{"started": time.Hour}); d.Reload || d.Wait > 0 || d.Omit != nil {
		t.Errorf("%+v", d)
	}
}

// Somebody who saves a file again and again is reloaded each time.
func TestGuardLetsEditsThrough(t *testing.T) {
	for name, delays := range map[string][]time.Duration{
		"now and then":    {9 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second},
		"during a reload": {200 * time.Millisecond, 900 * time.Millisecond, 9 * time.Second, 2500 * time.Millisecond, 800 * time.Millisecond, 20 * time.Second, 100 * time.Millisecond},
	} {
		w := newWorld(t)
		w.change(map[string]time.Duration{"app.js": 0})
		for i, delay := range delays {
			if d := w.change(map[string]time.Duration{"app.js": delay}); !d.Reload || d.Omit != nil {
				t.Errorf("%s, save %d: %+v", name, i, d)
			}
		}
	}
}

// A loop that is none of one file's is slowed down, and says so once; an edit ends it.
func TestGuardSlowsALoop(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]time.Duration{"app.js": 0})
	reloads, said, begun := 0, 0, w.now
	name := byte('a')
	for w.now.Sub(begun) < 5*time.Minute {
		c := Changes{First: string(name), Files: map[string]time.Time{string(name): w.last.Began.Add(100 * time.Millisecond)}}
		w.now = w.last.Began.Add(1100 * time.Millisecond)
		for {
			d := w.report(c)
			if d.Slowed {
				said++
			}
			if d.Reload {
				break
			}
			w.now = w.now.Add(d.Wait)
		}
		reloads++
		name++
	}
	if reloads < 8 || reloads > 12 || said != 1 {
		t.Errorf("%d reloads in 5 minutes, said %d times", reloads, said)
	}
	d := w.change(map[string]time.Duration{"app.js": time.Hour})
	if !d.Reload {
		t.Errorf("an edit waits: %+v", d)
	}
}

// Without any pattern in it, ten a minute are the most, but for what is ordered by a
// file.
func TestGuardsLimit(t *testing.T) {
	w := newWorld(t)
	for range perMinute {
		if d := w.change(map[string]time.Duration{"x": 4 * time.Second}); !d.Reload {
			t.Fatalf("%+v", d)
		}
	}
	c := Changes{First: "x", Files: map[string]time.Time{"x": w.last.Ended.Add(3 * time.Second)}}
	w.now = w.last.Ended.Add(4 * time.Second)
	d := w.report(c)
	if d.Reload || !d.Slowed || d.Wait <= 0 || d.Wait > time.Minute {
		t.Errorf("%+v", d)
	}
	c.AtOnce = true
	if d := w.report(c); !d.Reload || d.Wait != 0 {
		t.Errorf("%+v", d)
	}
	c.AtOnce = false
	w.now = w.now.Add(time.Minute)
	if d := w.report(c); !d.Reload {
		t.Errorf("%+v", d)
	}
}

// The configuration is never left out, also where a tool changes it right after each
// reload.
func TestGuardObeysTheConfiguration(t *testing.T) {
	w := newWorld(t)
	w.change(map[string]time.Duration{"app.js": 0})
	for i := range manyMore + 2 {
		at := w.last.Began.Add(100 * time.Millisecond)
		w.now = at.Add(time.Second)
		if d := w.report(Changes{First: "handoff.toml", Files: map[string]time.Time{"handoff.toml": at}, AtOnce: true}); !d.Reload || d.Wait > 0 || d.Omit != nil {
			t.Fatalf("%d: %+v", i, d)
		}
	}
}
