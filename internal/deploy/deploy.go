package deploy

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
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
	// Build runs in the copy before it is a version; may be nil.
	Build func(dir string) error
	// Progress is called for each file, with their number; may be nil.
	Progress func(files, of int, bytes int64)
}

// NewVersion generates a name that sorts by time.
func NewVersion(now time.Time) string {
	b := make([]byte, 3)
	rand.Read(b)
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b)
}

// Deploy copies a source into the folder, and registers it. It is a version only when all
// of it is on the disk; an unfinished copy has a hidden name.
func (f *Folder) Deploy(c Copy) (version string, err error) {
	if version = c.Version; version == "" {
		version = NewVersion(time.Now())
	}
	if err := CheckName(version); err != nil {
		return "", err
	}
	k, err := f.copier(c)
	if err != nil {
		return "", err
	}
	defer k.from.Close()
	_, err = f.root.Lstat(version)
	exists := err == nil
	if exists && !c.Force {
		return "", fmt.Errorf("version %s already exists (use --force to swap it for a new copy)", version)
	}
	k.into = unfinished + version + "-" + hex.EncodeToString(random(4))
	if err := f.root.Mkdir(k.into, 0o755); err != nil {
		return "", fmt.Errorf("cannot deploy: %w", err)
	}
	if err = f.fill(k); err == nil {
		err = f.put(k.into, version, exists)
	}
	if err != nil {
		f.root.RemoveAll(k.into)
		return "", err
	}
	if !slices.Contains(f.Versions, version) {
		f.Versions = append(f.Versions, version)
	}
	if f.Deployed == nil {
		f.Deployed = map[string]About{}
	}
	f.Deployed[version] = About{time.Now().UTC().Truncate(time.Millisecond), c.By, k.from.Name()}
	return version, f.Save()
}

// copier finds out what is copied from where.
func (f *Folder) copier(c Copy) (*copier, error) {
	from, err := filepath.Abs(c.From)
	if err == nil {
		from, err = filepath.EvalSymlinks(from)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot deploy: %w", err)
	}
	source, err := os.Stat(from)
	if err != nil || !source.IsDir() {
		return nil, fmt.Errorf("cannot deploy %s: not a directory", c.From)
	}
	to, err := os.Stat(f.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot deploy: %w", err)
	}
	if os.SameFile(source, to) {
		return nil, fmt.Errorf("cannot deploy %s into itself: it is the deployment; change to the source directory, or name it with --from", c.From)
	}
	k := &copier{Copy: c, to: f.root, skip: to}
	if c.LinkFrom != "" {
		name, err := f.Resolve(c.LinkFrom)
		if err == nil {
			err = f.there(name)
		}
		if err != nil {
			return nil, fmt.Errorf("--link-from: %w", err)
		}
		k.previous = name
	}
	if k.from, err = os.OpenRoot(from); err != nil {
		return nil, fmt.Errorf("cannot deploy: %w", err)
	}
	if b, err := readFile(filepath.Join(from, IgnoreFile)); err == nil {
		k.rules = parseIgnore(b)
	}
	return k, nil
}

// fill copies, links the shared resources, builds, and waits for the disk.
func (f *Folder) fill(k *copier) error {
	if k.Progress != nil {
		k.count()
	}
	err := k.tree(".")
	if err == nil {
		err = k.checkLinks()
	}
	if err != nil {
		return fmt.Errorf("cannot deploy: %w", err)
	}
	if shared, ok := f.shared(); ok {
		if _, err := f.share(k.into, shared); err != nil {
			return err
		}
	}
	if k.Build != nil {
		if err := k.Build(f.Dir(k.into)); err != nil {
			return err
		}
	}
	d, err := f.root.Open(k.into)
	if err == nil {
		err = unix.Syncfs(int(d.Fd()))
		d.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot deploy: %w", err)
	}
	return nil
}

// put makes a copy the version, in one instant. Who runs one that was there finds its
// files until the next clean.
func (f *Folder) put(copy, version string, exists bool) (err error) {
	if exists {
		err = f.rename(copy, version, unix.RENAME_EXCHANGE)
	} else {
		err = f.rename(copy, version, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return fmt.Errorf("cannot deploy: %w", err)
	}
	if exists {
		f.swapped = replaced + version + "-" + hex.EncodeToString(random(4))
		f.root.Rename(copy, f.swapped)
	}
	return sync(f.root, ".")
}

// rename renames one of the folder's entries, with flags of renameat2(2).
func (f *Folder) rename(from, to string, flags uint) error {
	d, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Renameat2(int(d.Fd()), from, int(d.Fd()), to, flags)
}

// Unfinished reports whether a name is that of a copy that is no version yet.
func Unfinished(name string) bool {
	return strings.HasPrefix(name, unfinished) && !strings.Contains(name, "/")
}

// Unswap puts back the copy that Deploy has swapped by force, and reports whether there
// was one.
func (f *Folder) Unswap(version string) (bool, error) {
	if f.swapped == "" {
		return false, nil
	}
	err := f.rename(f.swapped, version, unix.RENAME_EXCHANGE)
	if err == nil {
		err = sync(f.root, ".")
	}
	return err == nil, err
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
