// Package watch tells when files of a program have changed. It watches folders, not
// files (inotify(7)), so that many files cost little, and what an editor or git puts
// in a file's place is seen.
//
// All paths inside are resolved ones, since the kernel has one watch a folder, whichever
// name it was added by. A path that goes through symlinks, or is not there yet, is a
// target: it is resolved again when a name on its way changes.
package watch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config is what is watched.
type Config struct {
	// Dir is the folder, by the name that the user knows: where it is a symlink
	// (current → releases/42), a switch of it is a change.
	Dir string
	// Patterns are globs, absolute or relative to Dir, with ** and {a,b}; one that begins
	// with ! takes out again. A folder means everything below it. None: nothing is
	// watched but Files.
	Patterns []string
	// Ignore are globs of folders and files that are not looked at, besides
	// node_modules and what begins with a dot (unless a pattern names it).
	Ignore []string
	// Delay is how long nothing must have changed before it counts, so that a
	// checkout of a thousand files is one change. It counts after ten times that
	// in any case.
	Delay time.Duration
	// Files are watched by their paths, and count at once.
	Files []string
	// Own are absolute globs of what the caller writes itself, and Inodes are files that
	// it has open: they never count.
	Own    []string
	Inodes []Inode
}

// Inode is a file, whatever it is called.
type Inode struct{ Dev, Ino uint64 }

// Equal reports whether the same is watched.
func (c Config) Equal(o Config) bool {
	return c.Dir == o.Dir && c.Delay == o.Delay && slices.Equal(c.Patterns, o.Patterns) && slices.Equal(c.Ignore, o.Ignore) &&
		slices.Equal(c.Files, o.Files) && slices.Equal(c.Own, o.Own) && slices.Equal(c.Inodes, o.Inodes)
}

// Changes are files that have changed since the last ones were reported.
type Changes struct {
	First  string
	Files  map[string]time.Time // each, and when it was seen to change first
	AtOnce bool                 // one of Config.Files is among them
}

// Verdict is what follows.
type Verdict struct {
	// Wait keeps the changes, and reports them again with those that come meanwhile.
	Wait time.Duration
	// Omit are files that do not count any more.
	Omit []string
}

// Run watches until ctx ends, and calls changed with what has changed. An error is why it
// cannot watch.
func Run(ctx context.Context, cfg Config, changed func(Changes) Verdict) error {
	w := &watcher{Config: cfg, seen: map[string]time.Time{}, omitted: map[string]bool{}}
	if err := w.open(); err != nil {
		return err
	}
	defer func() { w.fs.Close() }()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.fs.Events:
			if !ok {
				return errors.New("the watch has ended")
			}
			switch w.look(e, time.Now()) {
			case atOnce:
				timer.Reset(0)
			case counts:
				if began.IsZero() {
					began = time.Now()
				}
				timer.Reset(min(w.Delay, time.Until(began.Add(10*w.Delay))))
			}
		case err := <-w.fs.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) { // much has changed, and what is not known
				w.note(w.Dir, time.Now())
				w.stale = true
				timer.Reset(w.Delay)
			}
		case <-timer.C:
			if w.stale && !w.reopen() { // what is not there is about to come
				timer.Reset(max(w.Delay, 100*time.Millisecond))
				continue
			}
			wait := w.report(changed)
			began = time.Time{}
			if wait > 0 {
				timer.Reset(wait)
			}
		}
	}
}

type watcher struct {
	Config
	place
	first   string
	seen    map[string]time.Time
	atOnce  bool
	omitted map[string]bool
	stale   bool // a target leads elsewhere than when it was opened
}

// report tells of what has been seen, if there is anything; it returns for how long it is
// kept.
func (w *watcher) report(changed func(Changes) Verdict) (wait time.Duration) {
	if len(w.seen) > 0 {
		v := changed(Changes{First: w.first, Files: maps.Clone(w.seen), AtOnce: w.atOnce})
		for _, name := range v.Omit {
			w.omitted[name] = true
			delete(w.seen, name)
		}
		if v.Wait > 0 && len(w.seen) > 0 {
			if w.omitted[w.first] {
				w.first = slices.Min(slices.Collect(maps.Keys(w.seen)))
			}
			return v.Wait
		}
	}
	w.first, w.seen, w.atOnce = "", map[string]time.Time{}, false
	return 0
}

func (w *watcher) note(name string, now time.Time) {
	if w.first == "" {
		w.first = name
	}
	if _, ok := w.seen[name]; !ok {
		w.seen[name] = now
	}
}

// reopen watches everything again, before the change is reported, so that no change is
// missed.
func (w *watcher) reopen() bool {
	before := w.place
	if err := w.open(); err != nil {
		w.place = before
		return false
	}
	before.fs.Close()
	w.stale = false
	return true
}
