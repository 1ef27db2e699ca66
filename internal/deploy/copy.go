package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// copier copies a source into a directory.
type copier struct {
	Copy
	root, into string
	skip       fs.FileInfo // the deployment, which may be inside of the source, by whatever name
	previous   string      // a version to share files with; "": none
	rules      ignore
	links      []string // that are copied, in the source
	files, of  int
	bytes      int64
}

// count finds out how many files there are. What is left out counts, too: the end comes
// sooner.
func (k *copier) count() {
	filepath.WalkDir(k.root, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == ".git" && e.IsDir() {
			return fs.SkipDir
		}
		k.of++
		return nil
	})
}

// tree copies what is in a directory, given relative to the source.
func (k *copier) tree(rel string) error {
	entries, err := os.ReadDir(filepath.Join(k.root, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(rel, e.Name())
		from := filepath.Join(k.root, name)
		if e.Name() == ".git" || k.rules.match(filepath.ToSlash(name), e.IsDir()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if os.SameFile(info, k.skip) {
			continue
		}
		if err := k.entry(name, from, filepath.Join(k.into, name), info); err != nil {
			return err
		}
		k.files++
		if k.Progress != nil {
			k.Progress(k.files, k.of, k.bytes)
		}
	}
	return nil
}

// entry copies a directory, a link or a file. Sockets, pipes and devices are no part of a
// program.
func (k *copier) entry(name, from, to string, info fs.FileInfo) error {
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
			return fmt.Errorf("the link %s leads to %s, outside the source (use --unsafe-links to copy it anyway)", name, target)
		}
		k.links = append(k.links, name)
		return os.Symlink(target, to)
	case info.Mode().IsRegular():
		return k.file(name, from, to, info)
	}
	return nil
}

// checkLinks finds a link that leads out of the copy over other links, which its text does
// not show: with sub -> ., sub/sub/../../x is outside.
func (k *copier) checkLinks() error {
	if k.Outside {
		return nil
	}
	root, err := os.Open(k.into)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range k.links {
		fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH})
		if err == nil {
			unix.Close(fd)
		}
		if err == unix.ENOSYS || err == unix.EPERM { // a container's profile: by what is there now
			at, aerr := filepath.EvalSymlinks(filepath.Join(k.into, name))
			into, ierr := filepath.EvalSymlinks(k.into)
			if rel, rerr := filepath.Rel(into, at); aerr == nil && ierr == nil && (rerr != nil || !filepath.IsLocal(rel)) {
				err = unix.EXDEV
			}
		}
		if err == unix.EXDEV { // also if nothing is there yet
			target, _ := os.Readlink(filepath.Join(k.into, name))
			return fmt.Errorf("the link %s leads to %s, outside the source (use --unsafe-links to copy it anyway)", name, target)
		}
	}
	return nil
}

// leaves tells whether a link at name leads out of the tree, by its text.
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
