package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// place is what the names of a configuration lead to now.
type place struct {
	fs      *fsnotify.Watcher
	globs   globs
	roots   []root
	targets map[string]*target
	ways    map[string]bool   // links on the way to targets, and the first name that is not there
	files   map[string]string // what targets lead to, if it is a file: the target's name
	special map[string]bool   // sockets and pipes below roots: they are no files of a program
}

// root is a folder with what patterns match.
type root struct {
	name string // as the patterns have it
	real string
	deep int // folders below it
}

// target is a path that may come to lead elsewhere.
type target struct {
	real   string // "": it is not there
	folder Inode  // if it is one: another one may be moved to its place
	atOnce bool
	silent bool // as long as it is not there nothing has changed: it is being switched
}

// follow resolves a path, and returns what its meaning hangs on: each symlink on the way,
// and the first name that is not there (ok is false then).
func follow(path string) (real string, ways []string, ok bool) {
	const most = 40 // links, as the kernel has it
	at, rest := "/", strings.Split(path, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return "", append(ways, next), false
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		to, err := os.Readlink(next)
		if ways = append(ways, next); err != nil || len(ways) > most {
			return "", ways, false
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return at, ways, true
}

// open starts to watch everything.
func (w *watcher) open() (err error) {
	w.place = place{targets: map[string]*target{}, ways: map[string]bool{}, files: map[string]string{}, special: map[string]bool{}}
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		return limits(err)
	}
	if err = w.openAll(); err != nil {
		w.fs.Close()
	}
	return err
}

func (w *watcher) openAll() error {
	for _, f := range w.Files {
		if _, err := os.Stat(filepath.Dir(f)); err != nil {
			return fmt.Errorf("cannot watch: %w", err)
		}
		if err := w.target(f, target{atOnce: true}); err != nil {
			return err
		}
	}
	if len(w.Patterns) == 0 {
		w.globs = globsOf(w.Config, "/")
		return nil
	}
	if err := w.target(w.Dir, target{silent: true}); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(w.Dir)
	if err != nil {
		return fmt.Errorf("cannot watch: %w", err)
	}
	w.globs = globsOf(w.Config, dir)
	for _, p := range w.globs.patterns {
		if !p.not {
			if err := w.root(p, dir); err != nil {
				return err
			}
		}
	}
	for _, r := range w.roots {
		if err := w.fs.Add(r.real); err != nil {
			return limits(err)
		}
		if err := w.addTree(r, r.real); err != nil {
			return err
		}
	}
	return nil
}

// root sees to it that what a pattern matches is watched. What is below Dir and behind no
// link has Dir as its root.
func (w *watcher) root(p pattern, dir string) error {
	name, deep := p.base, p.deep
	if p.path != "" {
		if err := w.target(p.path, target{}); err != nil {
			return err
		}
		if info, err := os.Stat(p.path); err == nil && info.IsDir() {
			name, deep = p.path, unlimited
		}
	}
	if err := w.target(name, target{}); err != nil {
		return err
	}
	real := w.targets[name].real
	if real == "" {
		return nil // it is watched as soon as it is there
	}
	if real == name && strings.HasPrefix(name+"/", dir+"/") {
		name, real, deep = dir, dir, unlimited
	}
	if real == "/" && deep > 0 {
		return fmt.Errorf("cannot watch: a pattern would watch the whole file system: %s", p.glob)
	}
	for i := range w.roots {
		if w.roots[i].name == name {
			w.roots[i].deep = max(w.roots[i].deep, deep)
			return nil
		}
	}
	w.roots = append(w.roots, root{name: name, real: real, deep: deep})
	w.ways[real] = true // another folder may be moved to its place
	return w.add(filepath.Dir(real))
}

// target watches the way to a path. What it leads to is looked up after the way is
// watched, so that no switch falls between.
func (w *watcher) target(name string, t target) error {
	if before := w.targets[name]; before != nil {
		before.atOnce = before.atOnce || t.atOnce
		return nil
	}
	var ways []string
	for range 3 {
		var again []string
		if t.real, again, _ = follow(name); ways != nil && slices.Equal(ways, again) {
			break
		}
		ways = again
		for _, way := range ways {
			if err := w.add(filepath.Dir(way)); err != nil {
				return err
			}
			w.ways[way] = true
		}
	}
	w.targets[name] = &t
	var isFile bool
	if t.folder, isFile = folder(t.real); isFile {
		w.files[t.real] = name
		return w.add(filepath.Dir(t.real))
	}
	return nil
}

// folder identifies what a path leads to, if it is a folder.
func folder(real string) (id Inode, isFile bool) {
	info, err := os.Stat(real)
	if err != nil || !info.IsDir() {
		return id, err == nil
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	return Inode{uint64(st.Dev), st.Ino}, false
}

// add watches a folder, which is resolved; one that is not there any more, or may not be
// read, is left out.
func (w *watcher) add(dir string) error {
	err := w.fs.Add(dir)
	for _, harmless := range []error{unix.ENOENT, unix.ENOTDIR, unix.EACCES} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	if err != nil {
		return limits(err)
	}
	return nil
}

// addTree watches a folder of a root and those in it, and where links in it lead to.
func (w *watcher) addTree(r root, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has just gone, or may not be read
		}
		rel, _ := filepath.Rel(r.real, p)
		switch {
		case d.Type()&fs.ModeSymlink != 0 && rel != "." && !w.globs.ignores(r.name, rel):
			return w.link(r, rel)
		case notRegular(d.Type()):
			w.special[p] = true
		}
		if !d.IsDir() {
			return nil
		}
		if rel != "." && (w.globs.ignores(r.name, rel) || strings.Count(rel, "/") >= r.deep) {
			return filepath.SkipDir
		}
		return w.add(p)
	})
}

// link has a symlink below a root watched, if it matches, as one file: a volume of
// Kubernetes switches its files by a link that they all go through.
func (w *watcher) link(r root, rel string) error {
	name := r.name + "/" + rel
	info, err := os.Stat(name)
	if !w.globs.matches(name, rel) && !(err == nil && info.IsDir() && w.globs.below(name)) {
		return nil
	}
	return w.target(name, target{})
}

// below reports whether something below a name may match.
func (g globs) below(name string) bool {
	return slices.ContainsFunc(g.patterns, func(p pattern) bool {
		return !p.not && p.deep == unlimited && strings.HasPrefix(name, p.base+"/")
	})
}

func notRegular(m fs.FileMode) bool {
	return m&(fs.ModeSocket|fs.ModeNamedPipe|fs.ModeDevice) != 0
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
