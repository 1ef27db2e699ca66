package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is a locked deployment. Open and Setup return it; Close unlocks it.
type Folder struct {
	Path string
	*Record
	lock    *os.File
	swapped string // where the copy is that Deploy has swapped by force
}

// ErrNone means that a folder is not a deployment.
var ErrNone = errors.New("is not a valid deployment")

// Is reports whether a folder is a deployment.
func Is(path string) bool {
	_, err := os.Stat(filepath.Join(path, File))
	return err == nil
}

// Find looks for a deployment from a folder upward.
func Find(path string) (string, bool) {
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		if Is(dir) {
			return dir, true
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}

// Read reads a deployment's record, without a lock.
func Read(path string) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(path, File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %w: there is no %s; `handoff setup` creates one", path, ErrNone, File)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the deployment: %w", err)
	}
	r, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("cannot parse %s; nothing is changed: %w", filepath.Join(path, File), err)
	}
	return r, nil
}

// Open locks a deployment for a change. It waits up to timeout for another process that
// changes it. The caller closes it.
func Open(path string, timeout time.Duration) (*Folder, error) {
	f := &Folder{Path: path}
	if !Is(path) {
		_, err := Read(path)
		return nil, err
	}
	var err error
	if f.lock, err = lock(path, timeout); err != nil {
		return nil, err
	}
	if f.Record, err = Read(path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Setup makes a folder a deployment; an existing one does not change.
func Setup(path, resourceLink string) error {
	if resourceLink != "" {
		if err := CheckName(resourceLink); err != nil {
			return fmt.Errorf("the resource link: %w", err)
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("cannot set up the deployment: %w", err)
	}
	l, err := lock(path, time.Minute)
	if err != nil {
		return err
	}
	f := &Folder{Path: path, lock: l, Record: &Record{ResourceLink: resourceLink}}
	defer f.Close()
	if Is(path) {
		_, err := Read(path) // one that cannot be parsed is not overwritten
		return err
	}
	return f.Save()
}

// Close unlocks it.
func (f *Folder) Close() {
	f.lock.Close() // this releases the lock
}

func lock(path string, timeout time.Duration) (*os.File, error) {
	// Whoever can open it can lock it: nobody else.
	l, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot change the deployment: %w", err)
	}
	l.Chmod(0o600) // an older one may be open to others
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return l, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			l.Close()
			return nil, fmt.Errorf("cannot change the deployment %s: another process is changing it (%w)", path, err)
		}
	}
}

// Save writes the record: whole, or not at all.
func (f *Folder) Save() error {
	b, err := f.Marshal()
	if err == nil {
		err = writeFile(filepath.Join(f.Path, File), b)
	}
	if err != nil {
		return fmt.Errorf("cannot write the deployment: %w", err)
	}
	return nil
}

// writeFile puts a file in the place of another in one instant, on the disk.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".rack-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
