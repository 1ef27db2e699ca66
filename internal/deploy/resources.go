package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

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
		return undo, fmt.Errorf("cannot link %s to the version's %s: a file with that name exists; move it away", at, inside)
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
	return undo, fmt.Errorf("cannot link the version's %s to the shared %s: a directory or file with that name exists; move it away, or exclude it from the copy with %s", inside, shared, IgnoreFile)
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
