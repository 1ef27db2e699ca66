package deploy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is a locked deployment. Open and Setup return it; Close unlocks it.
//
// It may belong to another user than the one who changes it, often root: what is written
// stays in it, also if folders are exchanged for links meanwhile.
type Folder struct {
	Path string
	*Record
	root    *os.Root // of Path
	lock    *os.File
	swapped string // the name of the copy that Deploy has swapped by force
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
	b, err := readFile(filepath.Join(path, File))
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

// maxFile is the largest record.
const maxFile = 16 << 20

// readFile reads a file of a deployment. It waits for nobody who has put a pipe there, and
// believes nobody who has put a file into a folder that is everybody's, like /tmp, for
// those who look for a deployment upwards.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a file")}
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if of := owner(info); dir.Mode().Perm()&0o002 != 0 && of != 0 && of != os.Geteuid() && of != owner(dir) {
		return nil, fmt.Errorf("%s belongs to the user %d, in a directory that anyone can write to; name the deployment that you mean", path, of)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("larger than 16 MiB")}
	}
	return b, err
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// Open locks a deployment for a change. It waits up to timeout for another process that
// changes it. The caller closes it.
func Open(path string, timeout time.Duration) (*Folder, error) {
	if !Is(path) {
		_, err := Read(path)
		return nil, err
	}
	f, err := open(path, timeout)
	if err != nil {
		return nil, err
	}
	if f.Record, err = Read(path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// open opens a folder, and locks it.
func open(path string, timeout time.Duration) (*Folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("cannot change the deployment: %w", err)
	}
	f := &Folder{Path: path, root: root}
	if f.lock, err = f.locked(timeout); err != nil {
		root.Close()
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
	f, err := open(path, time.Minute)
	if err != nil {
		return err
	}
	defer f.Close()
	f.Record = &Record{ResourceLink: resourceLink}
	if Is(path) {
		_, err := Read(path) // one that cannot be parsed is not overwritten
		return err
	}
	return f.Save()
}

// Close unlocks it.
func (f *Folder) Close() {
	f.lock.Close() // this releases the lock
	f.root.Close()
}

func (f *Folder) locked(timeout time.Duration) (*os.File, error) {
	// Whoever can open it can lock it: nobody else.
	l, err := f.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err == nil {
		if err = f.fit(l); err != nil {
			l.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot change the deployment: %w", err)
	}
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return l, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			l.Close()
			return nil, fmt.Errorf("cannot change the deployment %s: another process is changing it (%w)", f.Path, err)
		}
	}
}

// fit looks whether what is there by the lock's name is one, and closes an older one to
// others. What has another name as well may be any file of this user's.
func (f *Folder) fit(lock *os.File) error {
	info, err := lock.Stat()
	if err != nil {
		return err
	}
	named, err := f.root.Lstat(lockFile)
	if st := info.Sys().(*syscall.Stat_t); err != nil || !info.Mode().IsRegular() || !os.SameFile(info, named) || st.Nlink != 1 {
		return fmt.Errorf("%s is not a lock: it is a link, or no file; remove it", filepath.Join(f.Path, lockFile))
	}
	dir, err := f.root.Stat(".")
	if err != nil {
		return err
	}
	if of := owner(info); of != 0 && of != os.Geteuid() && of != owner(dir) {
		return fmt.Errorf("%s belongs to the user %d, who is not the deployment's; remove it", filepath.Join(f.Path, lockFile), of)
	}
	lock.Chmod(0o600)
	return nil
}

// Save writes the record: whole, or not at all.
func (f *Folder) Save() error {
	b, err := f.Marshal()
	if err == nil {
		err = f.writeFile(File, b)
	}
	if err != nil {
		return fmt.Errorf("cannot write the deployment: %w", err)
	}
	return nil
}

// writeFile puts a file in the place of another in one instant, on the disk.
func (f *Folder) writeFile(name string, b []byte) error {
	temporary := ".rack-" + hex.EncodeToString(random(4)) + ".tmp"
	tmp, err := f.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.root.Remove(temporary)
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
		err = f.root.Rename(temporary, name)
	}
	if err == nil {
		err = sync(f.root, ".")
	}
	return err
}

// sync has what was made and renamed in a directory be on the disk.
func sync(in *os.Root, dir string) error {
	d, err := in.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
