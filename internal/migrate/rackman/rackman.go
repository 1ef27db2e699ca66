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

	"handoff/internal/deploy"
	"handoff/internal/migrate"
)

// The files, in the order in which they decide what a folder is: see Find.
const (
	RackFile    = deploy.File
	VersionFile = deploy.VersionFile
	File        = ".rackman.json"
)

// Is tells whether a file is RackMan's, by its name.
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

// Read reads a folder's files, path being the one that makes it RackMan's, and returns
// what they mean as the text of a handoff.toml, and the path of the .rackman.json among
// them. fixed is the version to run; "": the live one.
func Read(path, fixed string) (text []byte, app string, err error) {
	dir := filepath.Dir(path)
	version, over := "false", map[string]any(nil) // as RackMan has it in a folder without versions
	if filepath.Base(path) != File {
		r := &deploy.Record{}
		if filepath.Base(path) == RackFile {
			if r, err = deploy.Read(dir); err != nil {
				return nil, "", err
			}
		}
		if version, err = head(path, r, fixed); err != nil {
			return nil, "", err
		}
		over, dir = r.Config(), filepath.Join(dir, version)
	}
	app = filepath.Join(dir, File)
	keys := map[string]any{}
	if err := migrate.ReadJSON(app, &keys); err != nil && (over == nil || !errors.Is(err, os.ErrNotExist)) {
		return nil, "", err
	}
	merge(keys, over)
	text, err = convert(app, dir, version, keys)
	return text, app, err
}

// head is the version that runs.
func head(path string, r *deploy.Record, fixed string) (string, error) {
	dir, head := filepath.Dir(path), r.Head
	if b, err := os.ReadFile(filepath.Join(dir, VersionFile)); head == "" && err == nil {
		head = strings.TrimSpace(string(b)) // the oldest form says it alone
	}
	if fixed != "" {
		head = fixed
	}
	if head == "" {
		return "", fmt.Errorf("%s: no version is live: deploy one, or switch to one", path)
	}
	if err := deploy.CheckName(head); err != nil {
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
