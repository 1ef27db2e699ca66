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
		return f.share(version, shared)
	}
	inside, err := f.inside()
	if err != nil {
		return undo, err
	}
	if _, err := os.Stat(filepath.Join(f.Dir(version), inside)); errors.Is(err, fs.ErrNotExist) {
		return undo, nil // this version has none: the link stays where it was
	}
	at := f.ResourceLink
	info, err := f.root.Lstat(at)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return undo, fmt.Errorf("cannot link %s to the version's %s: a file with that name exists; move it away", filepath.Join(f.Path, at), inside)
	}
	before := ""
	if err == nil {
		before, _ = f.root.Readlink(at)
	}
	if err := symlink(f.root, filepath.Join(version, inside), at); err != nil {
		return undo, fmt.Errorf("cannot link the resources: %w", err)
	}
	return func() {
		if before == "" {
			f.root.Remove(at)
		} else {
			symlink(f.root, before, at)
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

// shared is the name of the directory that all versions share, if the folder has one.
func (f *Folder) shared() (name string, ok bool) {
	if f.ResourceLink == "" {
		return "", false
	}
	info, err := f.root.Lstat(f.ResourceLink)
	return f.ResourceLink, err == nil && info.IsDir()
}

// share makes the resources in a directory of the folder, a version or a copy, a link to
// the shared ones.
func (f *Folder) share(dir, shared string) (undo func(), err error) {
	undo = func() {}
	inside, err := f.inside()
	if err != nil {
		return undo, err
	}
	to, err := filepath.Rel(filepath.Dir(filepath.Join(dir, inside)), shared)
	if err != nil {
		return undo, err
	}
	in, err := f.within(dir)
	if err != nil {
		return undo, fmt.Errorf("cannot link the resources: %w", err)
	}
	defer in.Close()
	if _, err := in.Lstat(inside); errors.Is(err, fs.ErrNotExist) {
		if err = in.MkdirAll(filepath.Dir(inside), 0o755); err == nil {
			err = symlink(in, to, inside)
		}
		if err != nil {
			return undo, fmt.Errorf("cannot link the resources: %w", err)
		}
		return func() {
			if in, err := f.within(dir); err == nil {
				in.Remove(inside)
				in.Close()
			}
		}, nil
	}
	if target, err := in.Readlink(inside); err == nil && target == to {
		return undo, nil
	}
	return undo, fmt.Errorf("cannot link the version's %s to the shared %s: a directory or file with that name exists; move it away, or exclude it from the copy with %s", inside, filepath.Join(f.Path, shared), IgnoreFile)
}

// within opens a directory of the folder. It may be a link to one elsewhere, RackMan's
// habit, if it is this user's own or root's.
func (f *Folder) within(dir string) (*os.Root, error) {
	info, err := f.root.Lstat(dir)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 && (owner(info) == os.Geteuid() || owner(info) == 0) {
		return os.OpenRoot(f.Dir(dir))
	}
	return f.root.OpenRoot(dir)
}

// symlink puts a link in the place of another in one instant.
func symlink(in *os.Root, to, at string) error {
	tmp := filepath.Join(filepath.Dir(at), ".rack-link-"+strconv.Itoa(os.Getpid()))
	in.Remove(tmp)
	if err := in.Symlink(to, tmp); err != nil {
		return err
	}
	if err := in.Rename(tmp, at); err != nil {
		in.Remove(tmp)
		return err
	}
	return sync(in, filepath.Dir(at))
}
