package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Resolve finds out which version is meant: a name; #N, the N-th of the list, from 0;
// ^N, N before the live one in the list (^-1 is the next one), ^ alone is ^1.
func (r *Record) Resolve(ref string) (string, error) {
	if ref == "" {
		return "", errWhich
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
		if at := lastIndex(stack, e.Version); e.How == ByRollback && at >= 0 {
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
		return "", fmt.Errorf("the history has no version %d steps back", steps)
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

// there reports whether a version's directory is there, and not elsewhere.
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
// a master sees. how is BySwitch or ByRollback.
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
	if n := len(f.History); n > maxHistory {
		f.History = f.History[n-maxHistory:]
	}
	if err := f.Save(); err != nil {
		f.Record = &before
		undo()
		return err
	}
	// The oldest form, where somebody still reads it.
	if _, err := f.root.Lstat(VersionFile); err == nil {
		return f.writeFile(VersionFile, []byte(version+"\n"))
	}
	return nil
}

// maxHistory is how many changes are remembered.
const maxHistory = 1000
