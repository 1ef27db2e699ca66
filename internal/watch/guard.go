package watch

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// The brake's values.
const (
	strikes    = 3               // reloads after each of which a file was written at the same moment
	manyMore   = 6               // the same, at whatever moment
	after      = 2 * time.Second // of a reload's end: what changes until then may be the workers' own doing
	spread     = 250 * time.Millisecond
	free       = 3               // reloads in a row without an edit in between, before they are slowed down
	firstPause = 2 * time.Second // doubles with each
	longest    = time.Minute
	perMinute  = 10
)

// Guard prevents endless reloads by watched files. Workers that write a watched file when
// they start would cause another reload: such a file is ignored. Other loops are slowed
// down. It is pure: time is an argument.
type Guard struct {
	asked   time.Time // the last reload by it
	inRow   int       // reloads without an edit before them
	recent  []time.Time
	start   time.Time           // of the last reload that files were counted for
	before  time.Time           // of the one before
	written map[string][]strike // by file: the last starts after which it was written
	omitted map[string]bool
	slowed  bool // it was said
}

// strike is one start after which a file was written, and how long after it.
type strike struct {
	start time.Time
	delay time.Duration
}

// Reload is the last reload of the workers, of any cause.
type Reload struct {
	Began time.Time // zero: there was none
	Ended time.Time // zero: it goes on
}

// Decision is what follows from changes.
type Decision struct {
	Verdict
	Reload bool   // now
	First  string // a file that is the reason
	Files  int
	Slowed bool // Wait has begun; it is said once
}

// Changed decides.
func (g *Guard) Changed(now time.Time, c Changes, last Reload) (d Decision) {
	files := maps.Clone(c.Files)
	maps.DeleteFunc(files, func(name string, _ time.Time) bool { return g.omitted[name] })
	edited := g.count(files, last)
	for name := range files {
		if !c.AtOnce && g.loops(name) { // of the configuration every change counts, however quick
			d.Omit = append(d.Omit, name)
			delete(files, name)
		}
	}
	slices.Sort(d.Omit)
	for _, name := range d.Omit {
		if g.omitted == nil {
			g.omitted = map[string]bool{}
		}
		g.omitted[name] = true
	}
	if len(files) == 0 {
		return d
	}
	if d.First, d.Files = c.First, len(files); files[d.First].IsZero() {
		d.First = slices.MinFunc(slices.Collect(maps.Keys(files)), func(a, b string) int { return cmp.Or(files[a].Compare(files[b]), cmp.Compare(a, b)) })
	}
	inRow := g.inRow + 1
	if edited || c.AtOnce {
		inRow = 0
	}
	if d.Wait = g.due(now, inRow, last).Sub(now); d.Wait > 0 && !c.AtOnce {
		d.Slowed, g.slowed = !g.slowed, true
		return d
	}
	d.Wait, d.Reload, g.asked, g.inRow = 0, true, now, inRow
	g.slowed = g.slowed && !edited
	if !c.AtOnce {
		g.recent = append(g.recent, now)
	}
	return d
}

// count notes which files were written right after a reload that was ours, and tells
// whether any was not: somebody has edited it.
func (g *Guard) count(files map[string]time.Time, last Reload) (edited bool) {
	ours := !g.asked.IsZero() && !last.Began.Before(g.asked)
	if ours && !last.Began.Equal(g.start) {
		g.before, g.start = g.start, last.Began
	}
	if g.written == nil {
		g.written = map[string][]strike{}
	}
	for name, at := range files {
		if !ours || at.Before(last.Began) || !last.Ended.IsZero() && at.After(last.Ended.Add(after)) {
			edited = true
			delete(g.written, name)
			continue
		}
		all := g.written[name]
		if n := len(all); n > 0 && all[n-1].start.Equal(g.start) {
			continue
		} else if n > 0 && !all[n-1].start.Equal(g.before) { // not after each
			all = nil
		}
		all = append(all, strike{g.start, at.Sub(g.start)})
		g.written[name] = all[max(0, len(all)-manyMore):]
	}
	return edited
}

// loops reports whether workers write a file at each start: three times at the same moment,
// which nobody who edits it does, or more often than anybody edits.
func (g *Guard) loops(name string) bool {
	all := g.written[name]
	if len(all) < strikes {
		return false
	}
	var sum time.Duration
	least, most := time.Duration(1<<62), time.Duration(0)
	for _, s := range all[len(all)-strikes:] {
		sum, least, most = sum+s.delay, min(least, s.delay), max(most, s.delay)
	}
	return most-least <= spread+sum/strikes/10 || len(all) >= manyMore
}

// due is when the next reload may be.
func (g *Guard) due(now time.Time, inRow int, last Reload) (at time.Time) {
	g.recent = slices.DeleteFunc(g.recent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(g.recent) >= perMinute {
		at = g.recent[0].Add(time.Minute)
	}
	if inRow > free {
		since := g.asked
		if last.Ended.After(since) {
			since = last.Ended
		}
		if paused := since.Add(min(firstPause<<min(inRow-free-1, 10), longest)); paused.After(at) {
			at = paused
		}
	}
	return at
}
