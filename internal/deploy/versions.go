package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resolve finds out which version is meant: a name; #N, the N-th of the list, from 0;
// ^N, N before the live one in the list (^-1 is the next one), ^ alone is ^1.
func (r *Record) Resolve(ref string) (string, error) {
	if ref == "" {
		return "", errors.New("which version? Give its name, #N, or ^N")
	}
	index := func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || len(text) > 9 {
			return 0, fmt.Errorf("%s does not yield a valid deployment index value", ref)
		}
		return n, nil
	}
	at := 0
	switch ref[0] {
	case '#':
		n, err := index(ref[1:])
		if err != nil {
			return "", err
		}
		at = n
	case '^':
		n := 1
		if len(ref) > 1 {
			var err error
			if n, err = index(ref[1:]); err != nil {
				return "", err
			}
		}
		head := slices.Index(r.Versions, r.Head)
		if head < 0 {
			//lint:ignore ST1005 RackMan\'s words
			return "", errors.New("Cannot use relative indexing when HEAD is not present in the deployment registry")
		}
		at = head - n
	default:
		return ref, CheckName(ref)
	}
	if at < 0 || at >= len(r.Versions) {
		return "", fmt.Errorf("%s does not yield a valid deployment index value", ref)
	}
	return r.Versions[at], nil
}

// Before returns the version that was live some steps before, by the history: a
// rollback goes back in it, and the next one further.
func (r *Record) Before(steps int) (string, error) {
	var stack []string
	for _, e := range r.History {
		if at := lastIndex(stack, e.Version); e.How == "rollback" && at >= 0 {
			stack = stack[:at+1]
			continue
		}
		if len(stack) == 0 || stack[len(stack)-1] != e.Version {
			stack = append(stack, e.Version)
		}
	}
	if n := len(stack); n == 0 || stack[n-1] != r.Head { // somebody else has switched
		if r.Head != "" {
			stack = append(stack, r.Head)
		}
	}
	at := len(stack) - 1 - steps
	if steps < 1 || at < 0 || len(stack) == 0 {
		if len(r.History) < 2 { // of a folder of RackMan's own there is no history: what it did
			return r.Resolve("^" + strconv.Itoa(max(steps, 1)))
		}
		return "", fmt.Errorf("no version was live %d steps before", steps)
	}
	return stack[at], nil
}

func lastIndex(list []string, s string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// Dir is the directory of a version.
func (f *Folder) Dir(version string) string { return filepath.Join(f.Path, version) }

// there tells whether a version's directory is there, and not elsewhere.
func (f *Folder) there(version string) error {
	if err := CheckName(version); err != nil {
		return err
	}
	info, err := os.Stat(f.Dir(version)) // a link to a directory is RackMan's habit, too
	if err != nil || !info.IsDir() {
		//lint:ignore ST1005 RackMan\'s words
		return fmt.Errorf("Couldn't find the target version, %s", version)
	}
	return nil
}

// Register adds a directory that is there to the list.
func (f *Folder) Register(version string) error {
	if version == "" {
		//lint:ignore ST1005 RackMan\'s words
		return errors.New("You failed to specify a version to register")
	}
	if err := CheckName(version); err != nil {
		return err
	}
	if f.there(version) != nil {
		//lint:ignore ST1005 RackMan\'s words
		return fmt.Errorf("There is no deployed project with the version number %s", version)
	}
	if !slices.Contains(f.Versions, version) {
		f.Versions = append(f.Versions, version)
	}
	return f.Save()
}

// Switch makes a version live: the resource link first, then the record, which is what
// a master sees. how is switch or rollback.
func (f *Folder) Switch(version, by, how string) error {
	if err := f.there(version); err != nil {
		return err
	}
	undo, err := f.link(version)
	if err != nil {
		return err
	}
	before := *f.Record
	f.Head = version
	f.History = append(slices.Clone(f.History), Live{version, time.Now().UTC().Truncate(time.Millisecond), by, how})
	if n := len(f.History); n > historyMost {
		f.History = f.History[n-historyMost:]
	}
	if err := f.Save(); err != nil {
		f.Record = &before
		undo()
		return err
	}
	// The oldest form, where somebody still reads it.
	if _, err := os.Lstat(filepath.Join(f.Path, VersionFile)); err == nil {
		return writeFile(filepath.Join(f.Path, VersionFile), []byte(version+"\n"))
	}
	return nil
}

// historyMost is how many changes are remembered.
const historyMost = 1000

// link joins a version's resources with the folder's, by a symlink. Where the folder
// has a directory of that name, it is the shared one, and the version's is a link to
// it; else the folder's is a link into the live version. A directory or file that is in
// the way is never touched. undo puts back what was.
func (f *Folder) link(version string) (undo func(), err error) {
	undo = func() {}
	if f.ResourceLink == "" {
		return undo, nil
	}
	if shared, ok := f.shared(); ok {
		return f.share(f.Dir(version), shared)
	}
	inside, err := f.inside()
	if err != nil {
		return undo, err
	}
	if _, err := os.Stat(filepath.Join(f.Dir(version), inside)); errors.Is(err, fs.ErrNotExist) {
		return undo, nil // this version has none: the link stays where it was
	}
	at := filepath.Join(f.Path, f.ResourceLink)
	info, err := os.Lstat(at)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return undo, fmt.Errorf("cannot link %s to the version's %s: a file of that name is in the way, and is not touched; move it away", at, inside)
	}
	before := ""
	if err == nil {
		before, _ = os.Readlink(at)
	}
	if err := symlink(filepath.Join(version, inside), at); err != nil {
		return undo, fmt.Errorf("cannot link the resources: %w", err)
	}
	return func() {
		if before == "" {
			os.Remove(at)
		} else {
			symlink(before, at)
		}
	}, nil
}

// inside is the name of the resources in a version.
func (f *Folder) inside() (string, error) {
	inside := f.Resources
	if inside == "" {
		inside = f.ResourceLink
	}
	if !filepath.IsLocal(inside) {
		return "", fmt.Errorf("the resources %q leave the version", inside)
	}
	return inside, nil
}

// shared is the directory that all versions share, if the folder has one.
func (f *Folder) shared() (path string, ok bool) {
	if f.ResourceLink == "" {
		return "", false
	}
	path = filepath.Join(f.Path, f.ResourceLink)
	info, err := os.Lstat(path)
	return path, err == nil && info.IsDir()
}

// share makes the resources in a version's directory a link to the shared ones.
func (f *Folder) share(dir, shared string) (undo func(), err error) {
	undo = func() {}
	inside, err := f.inside()
	if err != nil {
		return undo, err
	}
	own := filepath.Join(dir, inside)
	to, err := filepath.Rel(filepath.Dir(own), shared)
	if err != nil {
		return undo, err
	}
	if _, err := os.Lstat(own); errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(own), 0o755); err == nil {
			err = symlink(to, own)
		}
		if err != nil {
			return undo, fmt.Errorf("cannot link the resources: %w", err)
		}
		return func() { os.Remove(own) }, nil
	}
	if target, err := os.Readlink(own); err == nil && target == to {
		return undo, nil
	}
	return undo, fmt.Errorf("cannot link the version's %s to the shared %s: a directory or file of that name is in the way, and is not touched; move it away, or leave it out of the copy by %s", inside, shared, IgnoreFile)
}

// symlink puts a link in the place of another in one instant.
func symlink(to, at string) error {
	tmp := filepath.Join(filepath.Dir(at), ".rack-link-"+strconv.Itoa(os.Getpid()))
	os.Remove(tmp)
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, at); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(at))
}

// Clean says which directories go, by their names: those that deploy has left
// unfinished, and versions that the list knows, never the live one, nor the one that
// was live before it. It drops them from the record first, so that none that is listed is
// half gone. dry changes nothing.
type Clean struct {
	Until     string        // versions before this one in the list; "": none for that
	Keep      int           // all but so many of the newest; 0: none for that
	OlderThan time.Duration // those that were deployed before; 0: none for that
	Dry       bool
}

// Clean removes versions.
func (f *Folder) Clean(c Clean) (names []string, err error) {
	gone := map[string]bool{}
	if c.Until != "" {
		at := slices.Index(f.Versions, c.Until)
		if at < 0 {
			return nil, fmt.Errorf("%s is no version of %s; nothing is removed", c.Until, f.Path)
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
			if !at.IsZero() && time.Since(at) > c.OlderThan {
				gone[v] = true
			}
		}
	}
	delete(gone, f.Head)
	if before, err := f.Before(1); err == nil {
		delete(gone, before)
	}
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot clean: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) || strings.HasPrefix(e.Name(), replaced) {
			names = append(names, e.Name()) // who makes one has the lock, which is ours
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

// remove removes a version, or what is left of one: out of the way in one instant, so
// that nobody finds half of it.
func (f *Folder) remove(name string) error {
	at := f.Dir(name)
	if strings.HasPrefix(name, ".") {
		return os.RemoveAll(at)
	}
	info, err := os.Lstat(at)
	switch {
	case err != nil:
		return nil // it is gone already
	case info.Mode()&fs.ModeSymlink != 0:
		return os.Remove(at) // what it leads to is not ours
	}
	trash := filepath.Join(f.Path, replaced+"clean-"+name)
	if err := os.Rename(at, trash); err != nil {
		return err
	}
	return os.RemoveAll(trash)
}
