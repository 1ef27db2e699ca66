// Package watch tells when files of a program have changed. It watches folders, not
// files (inotify(7)), so that many files cost little, and what an editor or git puts
// in a file's place is seen.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Config is what is watched.
type Config struct {
	// Dir is the folder, by the name that the user knows: where it is a symlink
	// (current → releases/42), a switch of it is a change.
	Dir string
	// Patterns are globs relative to Dir, with ** and {a,b}; one that begins with !
	// takes out again. None: nothing is watched but Files.
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
}

// Check finds patterns that are none.
func Check(patterns []string) error {
	for _, p := range patterns {
		if !doublestar.ValidatePattern(strings.TrimPrefix(p, "!")) {
			return fmt.Errorf("invalid pattern %q", p)
		}
	}
	return nil
}

// Run watches until ctx ends, and calls changed with the name of what changed first
// and how many changed. An error is why it cannot watch.
func Run(ctx context.Context, cfg Config, changed func(first string, n int)) error {
	w := &watcher{Config: cfg, seen: map[string]bool{}}
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
			switch w.look(e) {
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
				w.note(w.Dir)
				timer.Reset(w.Delay)
			}
		case <-timer.C:
			if now, err := filepath.EvalSymlinks(w.Dir); len(w.Patterns) > 0 && now != w.real {
				// A symlink was switched. The new folder is watched before anybody
				// is told, so that nothing falls between; a folder that is not
				// there is about to come.
				before, real := w.fs, w.real
				if err == nil {
					err = w.open()
				}
				if err != nil {
					w.fs, w.real = before, real
					timer.Reset(max(w.Delay, 100*time.Millisecond))
					continue
				}
				before.Close()
			}
			first, n := w.first, len(w.seen)
			w.first, w.seen, began = "", map[string]bool{}, time.Time{}
			if n > 0 {
				changed(first, n)
			}
		}
	}
}

type watcher struct {
	Config
	fs    *fsnotify.Watcher
	real  string // Dir, resolved
	first string
	seen  map[string]bool
}

func (w *watcher) note(name string) {
	if w.first == "" {
		w.first = name
	}
	w.seen[name] = true
}

// open watches everything anew.
func (w *watcher) open() (err error) {
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		return limits(err)
	}
	fail := func(err error) error {
		w.fs.Close()
		return err
	}
	for _, f := range w.Files {
		if err := w.fs.Add(filepath.Dir(f)); err != nil {
			return fail(limits(err))
		}
	}
	if len(w.Patterns) == 0 {
		return nil
	}
	if w.real, err = filepath.EvalSymlinks(w.Dir); err != nil {
		return fail(fmt.Errorf("cannot watch: %w", err))
	}
	// Symlinks on the way are switched by their folders.
	for p := w.Dir; p != filepath.Dir(p); p = filepath.Dir(p) {
		if info, err := os.Lstat(p); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if err := w.fs.Add(filepath.Dir(p)); err != nil {
				return fail(limits(err))
			}
		}
	}
	if err := w.addTree(w.real); err != nil {
		return fail(err)
	}
	return nil
}

// addTree watches a folder and those in it.
func (w *watcher) addTree(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has just gone
		}
		if !d.IsDir() {
			return nil
		}
		if rel, _ := filepath.Rel(w.real, p); rel != "." && w.ignores(rel) {
			return filepath.SkipDir
		}
		if err := w.fs.Add(p); err != nil && !errors.Is(err, unix.ENOENT) {
			return limits(err)
		}
		return nil
	})
}

type verdict int

const (
	nothing verdict = iota
	counts
	atOnce
)

// look tells what an event means.
func (w *watcher) look(e fsnotify.Event) verdict {
	if e.Op == fsnotify.Chmod {
		return nothing
	}
	if slices.Contains(w.Files, e.Name) {
		w.note(e.Name)
		return atOnce
	}
	if len(w.Patterns) == 0 {
		return nothing
	}
	// A symlink of Dir's own path.
	if strings.HasPrefix(w.Dir+"/", e.Name+"/") {
		if now, err := filepath.EvalSymlinks(w.Dir); err == nil && now != w.real {
			w.note(e.Name)
			return counts
		}
		return nothing
	}
	rel, err := filepath.Rel(w.real, e.Name)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || w.ignores(rel) {
		return nothing
	}
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			// What is in it already made no event.
			found := nothing
			w.addTree(e.Name)
			filepath.WalkDir(e.Name, func(p string, d fs.DirEntry, err error) error {
				if rel, rerr := filepath.Rel(w.real, p); err == nil && rerr == nil && !d.IsDir() && w.matches(rel) && !w.ignores(rel) {
					w.note(p)
					found = counts
				}
				return nil
			})
			return found
		}
	}
	if !w.matches(rel) {
		return nothing
	}
	w.note(e.Name)
	return counts
}

// matches tells whether a path is watched: the last pattern that fits decides.
func (w *watcher) matches(rel string) bool {
	yes := false
	for _, p := range w.Patterns {
		not := strings.HasPrefix(p, "!")
		if ok, _ := doublestar.Match(strings.TrimPrefix(strings.TrimPrefix(p, "!"), "./"), rel); ok {
			yes = !not
		}
	}
	return yes
}

// ignores tells whether a path, or a folder that it is in, is not looked at.
func (w *watcher) ignores(rel string) bool {
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		named := slices.ContainsFunc(w.Patterns, func(p string) bool {
			return !strings.HasPrefix(p, "!") && slices.Contains(strings.Split(strings.TrimPrefix(p, "./"), "/"), part)
		})
		if (part == "node_modules" || strings.HasPrefix(part, ".")) && !named {
			return true
		}
		upTo := strings.Join(parts[:i+1], "/")
		for _, p := range w.Ignore {
			if ok, _ := doublestar.Match(strings.TrimSuffix(p, "/"), upTo); ok {
				return true
			}
		}
	}
	return false
}

// limits says what to do about inotify's.
func limits(err error) error {
	name := ""
	switch {
	case errors.Is(err, unix.ENOSPC):
		name = "max_user_watches"
	case errors.Is(err, unix.EMFILE):
		name = "max_user_instances"
	default:
		return fmt.Errorf("cannot watch: %w", err)
	}
	now, _ := os.ReadFile("/proc/sys/fs/inotify/" + name)
	return fmt.Errorf("cannot watch: the inotify limit is reached; raise it with sysctl fs.inotify.%s (it is %s), or ignore directories with --watch-ignore", name, strings.TrimSpace(string(now)))
}
