package deploy

import (
	"errors"
	"fmt"
	"path/filepath"
)

// How a version became live, in the history.
const (
	BySwitch   = "switch"
	ByRollback = "rollback"
)

// Locate finds the deployment among the arguments of a command, by RackMan's rule:
// the first argument if it is one, else the folder here, or one above it.
func Locate(here string, args []string) (folder string, rest []string, err error) {
	if len(args) > 0 && Is(args[0]) {
		folder, err := filepath.Abs(args[0])
		return folder, args[1:], err
	}
	if found, ok := Find(here); ok {
		return found, args, nil
	}
	if len(args) > 0 {
		return "", nil, fmt.Errorf("%s %w: it has no %s; `handoff setup %s` creates one", args[0], ErrNone, File, args[0])
	}
	return "", nil, fmt.Errorf("%s %w: there is no %s here or above; `handoff setup` creates one", here, ErrNone, File)
}

// Serves waits until the live version serves. The error is why it does not.
type Serves func() error

// GoLive makes a version live, and restores the previous state if it does not serve: the
// copy that was replaced with --force, else the version that was live before. serves nil:
// no handoff runs the folder, or the caller does not wait.
func (f *Folder) GoLive(version, by, how string, serves Serves) error {
	before := f.Head
	if err := f.Switch(version, by, how); err != nil {
		return err
	}
	if serves == nil {
		return nil
	}
	why := serves()
	if why == nil {
		return nil
	}
	if before == version {
		undone, err := f.Unswap(version)
		if undone {
			return fmt.Errorf("the new copy of %s does not serve; restored the previous one: %w", version, why)
		}
		if err != nil {
			why = fmt.Errorf("%w (and cannot restore the previous copy: %w)", why, err)
		}
	}
	if before == "" || before == version {
		return fmt.Errorf("%s does not serve: %w", version, why)
	}
	if err := f.Switch(before, by, ByRollback); err != nil {
		return fmt.Errorf("%s does not serve: %w; and cannot switch back to %s: %w", version, why, before, err)
	}
	return fmt.Errorf("%s does not serve, %s is live again: %w", version, before, why)
}

// Rollback makes the version live that was live some steps before; it returns which.
func (f *Folder) Rollback(steps int, by string, serves Serves) (version string, err error) {
	if version, err = f.Before(steps); err != nil {
		return "", err
	}
	return version, f.GoLive(version, by, ByRollback, serves)
}

// Listed is an entry of the list of versions.
type Listed struct {
	Version  string
	Live     bool
	Previous bool // it was live before
	About
}

// List returns the versions, oldest first.
func (r *Record) List() (list []Listed) {
	before, err := r.Before(1)
	if err != nil {
		before = ""
	}
	for _, v := range r.Versions {
		list = append(list, Listed{Version: v, Live: v == r.Head, Previous: v == before && v != r.Head, About: r.Deployed[v]})
	}
	return list
}

// errWhich asks for a version.
var errWhich = errors.New("no version given: want a name, #N or ^N")
