package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/fleet"
)

// Identity is how a later handoff knows a worker again when keeper and master were both
// killed, also one that has overwritten its environment (setproctitle), or is another
// user's.
type Identity struct {
	ID     fleet.ID  `json:"id"`
	Slot   int       `json:"slot"`
	Gen    fleet.Gen `json:"gen"`
	PID    int       `json:"pid"`
	Start  uint64    `json:"start"`            // see linux.Stat: with the pid, one process since the machine's start
	Notify string    `json:"notify,omitempty"` // where somebody listens as long as keeper or master live
}

// IdentityOf returns who a process is that the caller has a pidfd of: Start is 0 if it has
// gone.
func IdentityOf(p *linux.Pidfd) (pid int, start uint64) {
	s, err := linux.ReadStat(p.PID())
	if err != nil || p.Signal(0) == unix.ESRCH { // the pid may be another's
		return p.PID(), 0
	}
	return p.PID(), s.Start
}

// is tells whether a process is the one that was meant.
func (i Identity) is(p *linux.Pidfd) bool {
	pid, start := IdentityOf(p)
	return pid == i.PID && start == i.Start && start != 0
}

// alive tells whether it is still there.
func (i Identity) alive() bool {
	p, err := linux.OpenPidfd(i.PID)
	if err != nil {
		return false
	}
	defer p.Close()
	return i.is(p)
}

// WorkersFile has the identities of a service's workers on disk, for the handoff that comes
// after keeper and master were both killed: DIR/workers/INSTANCE, in a folder that only
// this user can read or write to. It is removed when the service ends.
type WorkersFile struct {
	dir, path, service string
	saved              []Identity
	written            bool
	before             []string // files of handoffs before this one
}

// workersFile is what is in it.
type workersFile struct {
	Version int        `json:"version"`
	Service string     `json:"service"`
	Boot    string     `json:"boot"` // of the machine: pids and start times are of it
	Workers []Identity `json:"workers"`
}

// maxWorkersFile bounds a file, in bytes.
const maxWorkersFile = 1 << 20

// NewWorkersFile is the file of a service, run by a keeper of that instance, in the folder
// of its sockets. Without any of them there is none, and nil is returned, which is valid.
func NewWorkersFile(dir, service, instance string) *WorkersFile {
	if !filepath.IsAbs(dir) || service == "" || instance == "" || strings.Contains(instance, "/") {
		return nil
	}
	dir = filepath.Join(dir, "workers")
	return &WorkersFile{dir: dir, path: filepath.Join(dir, instance), service: service}
}

// Save writes who the workers are, if that has changed, and then removes the files of
// handoffs before whose workers are gone, or are these.
func (f *WorkersFile) Save(workers []Identity) error {
	if f == nil || f.written && slices.Equal(workers, f.saved) {
		return nil
	}
	f.saved, f.written = slices.Clone(workers), true // one that cannot be written is tried again when it changes
	b, err := json.Marshal(workersFile{Version: 1, Service: f.service, Boot: bootID(), Workers: workers})
	if err == nil {
		err = f.write(b)
	}
	if err != nil {
		return fmt.Errorf("cannot write who the workers are: %w", err)
	}
	for _, path := range f.before {
		if w, err := readWorkers(path); err != nil || !slices.ContainsFunc(w.Workers, func(i Identity) bool { return i.alive() && !f.has(i) }) {
			os.Remove(path)
		}
	}
	f.before = nil
	return nil
}

func (f *WorkersFile) has(i Identity) bool {
	return slices.ContainsFunc(f.saved, func(s Identity) bool { return s.PID == i.PID && s.Start == i.Start })
}

func (f *WorkersFile) write(b []byte) error {
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := private(f.dir); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// Remove removes it: the service has ended.
func (f *WorkersFile) Remove() {
	if f != nil {
		os.Remove(f.path)
	}
}

// Found returns the workers of handoffs before that are still there, by pid, and removes
// the files of those that are not.
func (f *WorkersFile) Found() map[int]Identity {
	found := map[int]Identity{}
	if f == nil || private(f.dir) != nil {
		return found
	}
	entries, _ := os.ReadDir(f.dir)
	for _, e := range entries {
		path := filepath.Join(f.dir, e.Name())
		if path == f.path || e.Name()[0] == '.' {
			continue
		}
		w, err := readWorkers(path)
		if err != nil {
			continue // of a later version
		}
		w.Workers = slices.DeleteFunc(w.Workers, func(i Identity) bool { return !i.alive() })
		switch {
		case len(w.Workers) == 0:
			os.Remove(path)
		case w.Service == f.service:
			f.before = append(f.before, path)
			for _, i := range w.Workers {
				found[i.PID] = i
			}
		}
	}
	return found
}

// readWorkers reads a file; one of before the machine's last start has no workers.
func readWorkers(path string) (w workersFile, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // whatever it is, it is not waited for
	if err != nil {
		return w, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return w, errors.Join(err, errors.New("not a file"))
	}
	b, err := io.ReadAll(io.LimitReader(file, maxWorkersFile))
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return w, err
	}
	if w.Version != 1 {
		return w, fmt.Errorf("version %d", w.Version)
	}
	if w.Boot != bootID() {
		w.Workers = nil
	}
	return w, nil
}

// private looks whether a folder is this user's, and nobody else can use it.
func private(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder of this user alone", dir)
	}
	return nil
}

// bootID changes with each start of the machine.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
