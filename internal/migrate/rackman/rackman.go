// Package rackman reads RackMan's files, and writes what they mean as a handoff.toml. A
// folder with .rack.json is a deployment, with versions in folders of their own; one
// with .rackman.json alone is run as it is.
package rackman

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"handoff/internal/config"
	"handoff/internal/deploy"
	"handoff/internal/migrate"
	"handoff/internal/migrate/npm"
)

// The files, in the order in which they decide what a folder is: see Find.
const (
	RackFile    = deploy.File
	VersionFile = deploy.VersionFile
	File        = ".rackman.json"
)

// Is reports whether a file is RackMan's, by its name.
func Is(path string) bool {
	return slices.Contains([]string{RackFile, VersionFile, File}, filepath.Base(path))
}

// Find is the file that makes a folder RackMan's; "": it is not.
func Find(dir string) string {
	for _, name := range []string{RackFile, VersionFile, File} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// ErrNothing is that a version does not say what it runs.
var ErrNothing = errors.New("it has no " + config.FileName + ", no " + File + ", and no " + npm.File + " that starts something")

// Meaning is what a folder's files come to.
type Meaning struct {
	Path   string // of the file that says it
	Text   []byte // the same as a handoff.toml
	Here   string // what relative paths in it are relative to; "": the folder
	Report string // what is not used; "": nothing to say
}

// Read reads a folder's files, path being the one that makes it RackMan's, and returns
// what they mean. fixed is the version to run; "": the live one. A version says what it
// runs by a .rackman.json, else by a handoff.toml, else by what its package.json starts.
func Read(path, fixed string) (m Meaning, err error) {
	dir := filepath.Dir(path)
	version, over := "false", map[string]any(nil) // as RackMan has it in a folder without versions
	if filepath.Base(path) != File {
		r := &deploy.Record{}
		if filepath.Base(path) == RackFile {
			if r, err = deploy.Read(dir); err != nil {
				return m, err
			}
		}
		if version, err = head(path, r, fixed); err != nil {
			return m, err
		}
		over, dir = r.Config(), filepath.Join(dir, version)
	}
	m.Path = filepath.Join(dir, File)
	keys := map[string]any{}
	err = migrate.ReadJSON(m.Path, &keys)
	if errors.Is(err, os.ErrNotExist) {
		other, found, err := another(dir)
		if err != nil || found {
			if found && len(over) > 0 {
				other.Report = "its config is not used: the version has a " + filepath.Base(other.Path)
			}
			return other, err
		}
		if over == nil {
			return m, fmt.Errorf("cannot run %s: %w", dir, ErrNothing)
		}
	} else if err != nil {
		return m, err
	}
	merge(keys, over)
	m.Text, err = convert(m.Path, dir, version, keys)
	return m, err
}

// another reads the configuration of a version that has no .rackman.json.
func another(dir string) (m Meaning, found bool, err error) {
	m = Meaning{Path: filepath.Join(dir, config.FileName), Here: dir}
	if m.Text, err = migrate.ReadFile(m.Path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return m, err == nil, err
	}
	m.Path = filepath.Join(dir, npm.File)
	m.Text, err = npm.Read(m.Path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, npm.ErrNone) {
		return m, false, nil
	}
	return m, err == nil, err
}

// head is the version that runs.
func head(path string, r *deploy.Record, fixed string) (string, error) {
	dir, head := filepath.Dir(path), r.Head
	if b, err := migrate.ReadFile(filepath.Join(dir, VersionFile)); head == "" && err == nil {
		head = strings.TrimSpace(string(b)) // the oldest form says it alone
	}
	if fixed != "" {
		head = fixed
	}
	if head == "" {
		return "", fmt.Errorf("%s: no version is live: deploy one, or switch to one", path)
	}
	if err := deploy.CheckName(head); err != nil && !deploy.Unfinished(head) {
		return "", fmt.Errorf("%s: head: %w", path, err)
	}
	if info, err := os.Stat(filepath.Join(dir, head)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s: head is %s, and there is no such version in %s", path, head, dir)
	}
	return head, nil
}

// merge puts over's values over those of keys, deeply, as lodash's merge does.
func merge(keys, over map[string]any) {
	for k, v := range over {
		below, ok1 := keys[k].(map[string]any)
		above, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(below, above)
			continue
		}
		keys[k] = v
	}
}
