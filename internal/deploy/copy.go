package deploy

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// copier copies a source into a directory. Both may be another user's, who changes them
// meanwhile: what is read is in the source, and what is written in the deployment.
type copier struct {
	Copy
	from     *os.Root    // the source
	to       *os.Root    // the deployment
	into     string      // the directory, in to
	skip     fs.FileInfo // the deployment, which may be inside of the source, by whatever name
	previous string      // a version to share files with, in to; "": none
	rules    ignore
	links    []string // that are copied, in the source
	files    int
	of       int
	bytes    int64
}

// count finds out how many files there are. What is left out counts, too: the end comes
// sooner.
func (k *copier) count() {
	filepath.WalkDir(k.from.Name(), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == ".git" && e.IsDir() {
			return fs.SkipDir
		}
		k.of++
		return nil
	})
}

// tree copies what is in a directory, given relative to the source.
func (k *copier) tree(rel string) error {
	entries, err := k.entries(rel)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(rel, e.Name())
		if e.Name() == ".git" || k.rules.match(filepath.ToSlash(name), e.IsDir()) {
			continue
		}
		info, err := k.from.Lstat(name)
		if err != nil {
			return err
		}
		if os.SameFile(info, k.skip) {
			continue
		}
		if err := k.entry(name, filepath.Join(k.into, name), info); err != nil {
			return err
		}
		k.files++
		if k.Progress != nil {
			k.Progress(k.files, k.of, k.bytes)
		}
	}
	return nil
}

// entries lists a directory of the source, by name.
func (k *copier) entries(rel string) ([]fs.DirEntry, error) {
	return fs.ReadDir(k.from.FS(), filepath.ToSlash(rel))
}

// entry copies a directory, a link or a file. Sockets, pipes and devices are no part of a
// program.
func (k *copier) entry(name, to string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		if err := k.to.Mkdir(to, info.Mode().Perm()|0o700); err != nil {
			return err
		}
		if err := k.tree(name); err != nil {
			return err
		}
		if err := k.to.Chmod(to, info.Mode().Perm()); err != nil {
			return err
		}
		k.to.Chtimes(to, time.Time{}, info.ModTime())
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := k.from.Readlink(name)
		if err != nil {
			return err
		}
		if !k.Outside && leaves(name, target) {
			return fmt.Errorf("the link %s leads to %s, outside the source (use --unsafe-links to copy it anyway)", name, target)
		}
		k.links = append(k.links, name)
		return k.to.Symlink(target, to)
	case info.Mode().IsRegular():
		return k.file(name, to, info)
	}
	return nil
}

// checkLinks finds a link that leads out of the copy over other links, which its text does
// not show: with sub -> ., sub/sub/../../x is outside.
func (k *copier) checkLinks() error {
	if k.Outside {
		return nil
	}
	root, err := k.to.Open(k.into)
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
			folder := filepath.Join(k.to.Name(), k.into)
			at, aerr := filepath.EvalSymlinks(filepath.Join(folder, name))
			into, ierr := filepath.EvalSymlinks(folder)
			if rel, rerr := filepath.Rel(into, at); aerr == nil && ierr == nil && (rerr != nil || !filepath.IsLocal(rel)) {
				err = unix.EXDEV
			}
		}
		if err == unix.EXDEV { // also if nothing is there yet
			target, _ := k.to.Readlink(filepath.Join(k.into, name))
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
func (k *copier) file(name, to string, info fs.FileInfo) error {
	k.bytes += info.Size()
	in, err := regular(k.from, name)
	if err != nil {
		return err
	}
	defer in.Close()
	is, err := in.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(is, info) {
		return fmt.Errorf("%s has changed while it was copied", name)
	}
	if special := info.Mode() & (fs.ModeSetuid | fs.ModeSetgid); k.previous != "" && special == 0 {
		old := filepath.Join(k.previous, name)
		if was, err := k.to.Lstat(old); err == nil && was.Mode() == info.Mode() && was.Size() == info.Size() && k.same(old, in) && k.to.Link(old, to) == nil {
			return nil
		}
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := k.to.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		_, err = io.Copy(out, in) // copy_file_range(2) where it can be
	}
	if err == nil {
		err = out.Chmod(modeOf(out, info))
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = k.to.Chtimes(to, time.Time{}, info.ModTime())
	}
	return err
}

// modeOf is the mode of a copy. It belongs to who copies: a program of another user's that
// is to run as its owner (setuid) would run as this one, perhaps root.
func modeOf(copy *os.File, info fs.FileInfo) fs.FileMode {
	mode := info.Mode().Perm() | info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)
	is, err := copy.Stat()
	if err != nil {
		return mode.Perm()
	}
	a, b := is.Sys().(*syscall.Stat_t), info.Sys().(*syscall.Stat_t)
	if a.Uid != b.Uid {
		mode &^= fs.ModeSetuid
	}
	if a.Uid != b.Uid || a.Gid != b.Gid {
		mode &^= fs.ModeSetgid
	}
	return mode
}

// regular opens a file, and nothing that one might wait for.
func regular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s has changed while it was copied", name)
	}
	return f, nil
}

// same compares a file of the deployment with another, from its beginning.
func (k *copier) same(a string, fb *os.File) bool {
	fa, err := regular(k.to, a)
	if err != nil {
		return false
	}
	defer fa.Close()
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
