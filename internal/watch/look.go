package watch

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

type verdict int

const (
	nothing verdict = iota
	counts
	atOnce
)

// look tells what an event means.
func (w *watcher) look(e fsnotify.Event, now time.Time) verdict {
	if e.Op == fsnotify.Chmod || w.omitted[e.Name] {
		return nothing
	}
	found := nothing
	if w.ways[e.Name] {
		found = w.switched(now)
	}
	if name, ok := w.files[e.Name]; ok && found == nothing {
		found = w.counts(name, now)
	}
	if found == nothing && w.inRoots(e, now) {
		found = counts
	}
	return found
}

// switched looks what a changed link, or a name that has come or gone, means: each target
// that leads elsewhere now has changed.
func (w *watcher) switched(now time.Time) (found verdict) {
	for _, name := range slices.Sorted(maps.Keys(w.targets)) {
		t := w.targets[name]
		real, _, ok := follow(name)
		id, _ := folder(real)
		if real == t.real && id == t.folder || !ok && t.silent {
			continue
		}
		t.real, t.folder, w.stale = real, id, true
		found = max(found, w.counts(name, now))
	}
	return found
}

// counts notes a target.
func (w *watcher) counts(name string, now time.Time) verdict {
	if w.omitted[name] || w.globs.isOwn(name) {
		return nothing
	}
	w.note(name, now)
	if w.targets[name].atOnce {
		w.atOnce = true
		return atOnce
	}
	return counts
}

// inRoots reports whether an event is of a file that matches.
func (w *watcher) inRoots(e fsnotify.Event, now time.Time) (found bool) {
	for _, r := range w.roots {
		rel, err := filepath.Rel(r.real, e.Name)
		if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") || strings.Count(rel, "/") > r.deep || w.globs.ignores(r.name, rel) {
			continue
		}
		info, err := os.Lstat(e.Name)
		switch {
		case err == nil && info.IsDir():
			if e.Has(fsnotify.Create) && w.created(r, e.Name, now) {
				found = true
			}
			continue
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			w.link(r, rel)
		}
		if w.globs.matches(r.name+"/"+rel, rel) && !w.own(e.Name, info) {
			w.note(e.Name, now)
			found = true
		}
	}
	return found
}

// created watches a new folder. What is in it already made no event.
func (w *watcher) created(r root, dir string, now time.Time) (found bool) {
	w.addTree(r, dir)
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(r.real, p)
		if err != nil || rerr != nil || d.IsDir() || !w.globs.matches(r.name+"/"+rel, rel) || w.globs.ignores(r.name, rel) {
			return nil
		}
		if info, err := d.Info(); err == nil && !w.own(p, info) {
			w.note(p, now)
			found = true
		}
		return nil
	})
	return found
}

// own reports whether a file is no file of a program's: the caller writes it, or it is a
// socket. info is nil where it has gone.
func (w *watcher) own(name string, info fs.FileInfo) bool {
	if w.omitted[name] || w.globs.isOwn(name) {
		return true
	}
	if info == nil {
		return w.special[name]
	}
	if notRegular(info.Mode()) {
		w.special[name] = true
		return true
	}
	delete(w.special, name)
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && slices.Contains(w.Inodes, Inode{Dev: uint64(st.Dev), Ino: st.Ino})
}
