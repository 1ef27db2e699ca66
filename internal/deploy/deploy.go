package deploy

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Copy is one deployment of a source as a version.
type Copy struct {
	From     string // the source
	Version  string // "": made up; names that are made up sort by time
	By       string
	Force    bool   // a version that is there is swapped for the new copy
	LinkFrom string // a version whose unchanged files are shared; "": none
	Outside  bool   // symlinks may lead out of the source
	// Build runs in the copy before it is a version; nil: nothing does.
	Build func(dir string) error
	// Progress is told of each file, of so many; nil: nobody is.
	Progress func(files, of int, bytes int64)
}

// NewVersion makes a name up: it sorts by time.
func NewVersion(now time.Time) string {
	b := make([]byte, 3)
	rand.Read(b)
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b)
}

// Deploy copies a source into the folder, and registers it. It is a version only when
// all of it is on the disk; what was begun and is not finished has a hidden name.
func (f *Folder) Deploy(c Copy) (version string, err error) {
	if version = c.Version; version == "" {
		version = NewVersion(time.Now())
	}
	if err := CheckName(version); err != nil {
		return "", err
	}
	from, err := filepath.EvalSymlinks(c.From)
	if err != nil {
		return "", fmt.Errorf("cannot deploy: %w", err)
	}
	if info, err := os.Stat(from); err != nil || !info.IsDir() {
		return "", fmt.Errorf("cannot deploy %s: not a directory", c.From)
	}
	to, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return "", err
	}
	if from == to || strings.HasPrefix(from+"/", to+"/") && !f.registered(from, to) {
		return "", fmt.Errorf("cannot deploy %s into itself: go to the source, or give it by --from", c.From)
	}
	_, err = os.Lstat(f.Dir(version))
	exists := err == nil
	if exists && !c.Force {
		return "", fmt.Errorf("version %s is there already; --force swaps it for a new copy", version)
	}
	tmp := filepath.Join(f.Path, unfinished+version+"-"+hex.EncodeToString(random(4)))
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", fmt.Errorf("cannot deploy: %w", err)
	}
	done := false
	defer func() {
		if !done {
			os.RemoveAll(tmp)
		}
	}()
	k := copier{Copy: c, root: from, into: tmp, skip: to}
	if c.LinkFrom != "" {
		name, err := f.Resolve(c.LinkFrom)
		if err == nil {
			err = f.there(name)
		}
		if err != nil {
			return "", fmt.Errorf("--link-from: %w", err)
		}
		k.previous = f.Dir(name)
	}
	if b, err := os.ReadFile(filepath.Join(from, IgnoreFile)); err == nil {
		k.rules = parseIgnore(b)
	}
	if c.Progress != nil {
		filepath.WalkDir(from, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Name() == ".git" && e.IsDir() {
				return fs.SkipDir
			}
			k.of++ // what is left out counts, too: the end comes sooner
			return nil
		})
	}
	if err := k.tree("."); err != nil {
		return "", fmt.Errorf("cannot deploy: %w", err)
	}
	if shared, ok := f.shared(); ok {
		if _, err := f.share(tmp, shared); err != nil {
			return "", err
		}
	}
	if c.Build != nil {
		if err := c.Build(tmp); err != nil {
			return "", err
		}
	}
	if d, err := os.Open(tmp); err == nil { // all of it on the disk
		err = unix.Syncfs(int(d.Fd()))
		d.Close()
		if err != nil {
			return "", fmt.Errorf("cannot deploy: %w", err)
		}
	}
	if exists {
		// Who runs the old copy finds its files until the next clean.
		if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, f.Dir(version), unix.RENAME_EXCHANGE); err != nil {
			return "", fmt.Errorf("cannot deploy: %w", err)
		}
		done = true
		f.swapped = filepath.Join(f.Path, replaced+version+"-"+hex.EncodeToString(random(4)))
		os.Rename(tmp, f.swapped)
	} else if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, f.Dir(version), unix.RENAME_NOREPLACE); err != nil {
		return "", fmt.Errorf("cannot deploy: %w", err)
	}
	done = true
	if err := syncDir(f.Path); err != nil {
		return "", err
	}
	if !slices.Contains(f.Versions, version) {
		f.Versions = append(f.Versions, version)
	}
	if f.Deployed == nil {
		f.Deployed = map[string]About{}
	}
	f.Deployed[version] = About{time.Now().UTC().Truncate(time.Millisecond), c.By, from}
	return version, f.Save()
}

// Unswap puts back the copy that Deploy has swapped by force, and tells whether there
// was one.
func (f *Folder) Unswap(version string) (bool, error) {
	if f.swapped == "" {
		return false, nil
	}
	err := unix.Renameat2(unix.AT_FDCWD, f.swapped, unix.AT_FDCWD, f.Dir(version), unix.RENAME_EXCHANGE)
	if err == nil {
		err = syncDir(f.Path)
	}
	return err == nil, err
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// registered tells whether a source below the folder is one of its versions: a version
// may be deployed from another.
func (f *Folder) registered(from, to string) bool {
	rel, err := filepath.Rel(to, from)
	return err == nil && slices.Contains(f.Versions, rel)
}

type copier struct {
	Copy
	root, into string
	skip       string // the deployment, where it is inside of the source
	previous   string // a version to share files with; "": none
	rules      ignore
	files, of  int
	bytes      int64
}

func (k *copier) tree(rel string) error {
	entries, err := os.ReadDir(filepath.Join(k.root, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(rel, e.Name())
		from := filepath.Join(k.root, name)
		if e.Name() == ".git" || from == k.skip || k.rules.match(filepath.ToSlash(name), e.IsDir()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(k.into, name)
		switch {
		case info.IsDir():
			if err := os.Mkdir(to, info.Mode().Perm()|0o700); err != nil {
				return err
			}
			if err := k.tree(name); err != nil {
				return err
			}
			if err := os.Chmod(to, info.Mode().Perm()); err != nil {
				return err
			}
			os.Chtimes(to, time.Time{}, info.ModTime())
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if !k.Outside && leaves(name, target) {
				return fmt.Errorf("the link %s leads to %s, out of the source: --unsafe-links copies it all the same", name, target)
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			if err := k.file(name, from, to, info); err != nil {
				return err
			}
		} // sockets, pipes and devices are no part of a program
		k.files++
		if k.Progress != nil {
			k.Progress(k.files, k.of, k.bytes)
		}
	}
	return nil
}

// leaves tells whether a link at name leads out of the tree.
func leaves(name, target string) bool {
	return filepath.IsAbs(target) || !filepath.IsLocal(filepath.Join(filepath.Dir(name), target))
}

// file shares a file with the previous version if it is the same, clones it where the
// file system can, or copies it.
func (k *copier) file(name, from, to string, info fs.FileInfo) error {
	k.bytes += info.Size()
	if k.previous != "" {
		old := filepath.Join(k.previous, name)
		if was, err := os.Lstat(old); err == nil && was.Mode() == info.Mode() && was.Size() == info.Size() && same(old, from) && os.Link(old, to) == nil {
			return nil
		}
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		_, err = io.Copy(out, in) // copy_file_range(2) where it can be
	}
	if err == nil {
		err = out.Chmod(info.Mode().Perm() | info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(to, time.Time{}, info.ModTime())
	}
	return err
}

// same compares two files.
func same(a, b string) bool {
	fa, err1 := os.Open(a)
	fb, err2 := os.Open(b)
	if err := errors.Join(err1, err2); err != nil {
		return false
	}
	defer fa.Close()
	defer fb.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return errA == errB
		}
	}
}
