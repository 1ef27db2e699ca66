package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Clean says which directories go, by their names: those that deploy has left
// unfinished, and versions that the list knows, never the live one, nor the one that
// was live before it. It drops them from the record first, so that none that is listed is
// half gone. dry changes nothing.
type Clean struct {
	Until     string        // versions before this one in the list, see Resolve; "": none
	Keep      int           // all but so many of the newest; 0: none
	OlderThan time.Duration // those deployed before; 0: none
	Dry       bool
}

// Clean removes versions, and unfinished copies of deploy.
func (f *Folder) Clean(c Clean) (names []string, err error) {
	gone, err := f.old(c, time.Now())
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot clean: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) || strings.HasPrefix(e.Name(), replaced) {
			names = append(names, e.Name()) // a deploy has the lock, which this process has now
		}
	}
	for _, v := range f.Versions {
		if gone[v] {
			names = append(names, v)
		}
	}
	if c.Dry || len(names) == 0 {
		return names, nil
	}
	f.Versions = slices.DeleteFunc(slices.Clone(f.Versions), func(v string) bool { return gone[v] })
	for v := range gone {
		delete(f.Deployed, v)
	}
	if err := f.Save(); err != nil {
		return nil, err
	}
	for _, name := range names {
		err = errors.Join(err, f.remove(name))
	}
	return names, err
}

// old are the versions that go.
func (f *Folder) old(c Clean, now time.Time) (gone map[string]bool, err error) {
	gone = map[string]bool{}
	if c.Until != "" {
		until, err := f.Resolve(c.Until)
		if err != nil {
			return nil, err
		}
		at := slices.Index(f.Versions, until)
		if at < 0 {
			return nil, fmt.Errorf("%s is not a version of %s; nothing is removed", until, f.Path)
		}
		if slices.Contains(f.Versions[:at], f.Head) {
			//lint:ignore ST1005 RackMan\'s words
			return nil, errors.New("Cannot clean as the current deployment is within the selected range")
		}
		for _, v := range f.Versions[:at] {
			gone[v] = true
		}
	}
	if c.Keep > 0 {
		for _, v := range f.Versions[:max(len(f.Versions)-c.Keep, 0)] {
			gone[v] = true
		}
	}
	if c.OlderThan > 0 {
		for _, v := range f.Versions {
			at := f.Deployed[v].At
			if info, err := os.Stat(f.Dir(v)); at.IsZero() && err == nil {
				at = info.ModTime()
			}
			if !at.IsZero() && now.Sub(at) > c.OlderThan {
				gone[v] = true
			}
		}
	}
	delete(gone, f.Head)
	if before, err := f.Before(1); err == nil {
		delete(gone, before)
	}
	return gone, nil
}

// remove removes a version, or what is left of one: out of the way in one instant, so
// that nobody finds half of it.
func (f *Folder) remove(name string) error {
	if strings.HasPrefix(name, ".") {
		return f.root.RemoveAll(name)
	}
	info, err := f.root.Lstat(name)
	switch {
	case err != nil:
		return nil // already removed
	case info.Mode()&fs.ModeSymlink != 0:
		return f.root.Remove(name) // what it leads to is not ours
	}
	trash := replaced + "clean-" + name
	if err := f.root.Rename(name, trash); err != nil {
		return err
	}
	return f.root.RemoveAll(trash)
}
