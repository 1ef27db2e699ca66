// Package upgrade replaces a master by the binary on disk, with tableflip. How it avoids
// tableflip's pitfalls:
//
//   - It starts os.Args[0]: the keeper makes that absolute, through the symlinks
//     that the user called, so that a switched one is followed.
//   - A failed Upgrade keeps the descriptors that were added to it forever, and
//     there is one Upgrader a process. So only the state goes through it, for the
//     new binary to see whether it understands; listening sockets and the rest
//     come from the keeper, to which they are known already.
//   - "parent hasn't exited": the old master exits as soon as the new one is ready.
//   - Its variable and its descriptors 3 and 4 leak to processes that an upgraded
//     one starts, a new keeper among them, whose masters would look for a parent:
//     both are made close-on-exec, and the variable is taken out of the environment.
package upgrade

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Upgrader is the state of upgrades in this process.
type Upgrader struct {
	tf *tableflip.Upgrader
}

const stateName = "state"

// parentVariable is how tableflip identifies a candidate.
const parentVariable = "TABLEFLIP_HAS_PARENT_7DIU3"

// New must be called once, before anything is opened. timeout is how long a new binary
// may take to be ready.
func New(timeout time.Duration) (*Upgrader, error) {
	tf, err := tableflip.New(tableflip.Options{UpgradeTimeout: timeout})
	if err != nil {
		return nil, fmt.Errorf("cannot prepare for upgrades: %w", err)
	}
	os.Unsetenv(parentVariable)
	if tf.HasParent() {
		unix.CloseOnExec(3)
		unix.CloseOnExec(4)
	}
	return &Upgrader{tf}, nil
}

// Candidate reports whether this process was started to take over from a master, which
// continues if this one does not call Take.
func (u *Upgrader) Candidate() bool { return u.tf.HasParent() }

// State returns the state of the master that started this candidate.
func (u *Upgrader) State() ([]byte, error) {
	f, err := u.tf.Fds.File(stateName)
	if err == nil && f == nil {
		err = errors.New("the keeper has none")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of the previous master: %w", err)
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
}

// Take reports that this candidate can take over, and waits until the previous master has
// exited.
func (u *Upgrader) Take(timeout time.Duration) error {
	if err := u.tf.Ready(); err != nil {
		return fmt.Errorf("cannot take over: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := u.tf.WaitForParent(ctx); err != nil {
		return fmt.Errorf("the previous master does not exit: %w", err)
	}
	return nil
}

// Settle is for a master that is not a candidate: it may upgrade from now on.
func (u *Upgrader) Settle() error { return u.tf.Ready() }

// Start starts the binary on disk with the state, and waits until it can take over. After
// that the caller must exit immediately. On error nothing has changed.
func (u *Upgrader) Start(state []byte) error {
	if _, err := exec.LookPath(os.Args[0]); err != nil {
		var e *exec.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return fmt.Errorf("cannot run %s: %w", os.Args[0], err)
	}
	fd, err := linux.Memfd("handoff-state", state)
	if err != nil {
		return fmt.Errorf("cannot write the state: %w", err)
	}
	f := os.NewFile(uintptr(fd), stateName)
	defer f.Close()
	if err := u.tf.Fds.AddFile(stateName, f); err != nil {
		return fmt.Errorf("cannot pass the state: %w", err)
	}
	why, err := linux.Memfd("handoff-why", nil)
	if err != nil {
		return fmt.Errorf("cannot make a file for the new binary's reason: %w", err)
	}
	defer unix.Close(why)
	os.Setenv(envWhy, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), why))
	defer os.Unsetenv(envWhy)
	if err := u.tf.Upgrade(); err != nil {
		return fmt.Errorf("the new binary %s does not take over: %w%s", os.Args[0], err, reason(why))
	}
	return nil
}

// envWhy is a file of the master that starts a candidate, for the reason why that one does
// not take over: it would be on stderr alone.
const envWhy = "HANDOFF_UPGRADE_WHY"

// maxWhy is how much of that reason is read, in bytes.
const maxWhy = 1 << 10

// reason is what a candidate has left; "": nothing.
func reason(why int) string {
	b := make([]byte, maxWhy)
	n, err := unix.Pread(why, b, 0)
	if err != nil || n == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(b[:n]))
}

// Explainer returns a function that tells the master that has started this candidate why
// it does not take over. It must be called once, before anything is started.
func Explainer() func(error) {
	path := os.Getenv(envWhy)
	os.Unsetenv(envWhy)
	return func(err error) {
		if path != "" {
			os.WriteFile(path, []byte(err.Error()), 0o600) // it is on stderr, too
		}
	}
}

// Changed reports whether the binary on disk differs from the running one: by inode and
// size, then by build id. A missing or unreadable one does not.
func Changed() bool {
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	disk, err := os.Stat(os.Args[0])
	if err != nil || os.SameFile(running, disk) {
		return false
	}
	return running.Size() != disk.Size() || buildID("/proc/self/exe") != buildID(os.Args[0])
}

// buildID returns Go's build id of a binary, or "" if it has none.
func buildID(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	s := f.Section(".note.go.buildid")
	if s == nil {
		return ""
	}
	b, err := s.Data()
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00")
}
