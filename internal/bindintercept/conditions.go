package bindintercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conditions are the start conditions of a worker, besides its descriptors. The zero
// value changes nothing. The trampoline applies them, in the worker's own process, after
// the fork and before the program: a failure ends the worker with an error message.
type Conditions struct {
	User   *Identity   `json:"user,omitempty"`   // nil: as handoff
	Umask  *int        `json:"umask,omitempty"`  // nil: as handoff
	Nice   *int        `json:"nice,omitempty"`   // setpriority(2), -20 to 19
	Limits []Limit     `json:"limits,omitempty"` // setrlimit(2)
	CPUs   []int       `json:"cpus,omitempty"`   // sched_setaffinity(2); none: as handoff
	Cgroup string      `json:"cgroup,omitempty"` // directory of a version 2 hierarchy
	Death  unix.Signal `json:"death,omitempty"`  // PR_SET_PDEATHSIG: signal when its master ends
	Parent int         `json:"parent,omitempty"` // its master's pid, with Death
}

// Identity is the user of a worker.
type Identity struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`
}

// Limit is one limit of setrlimit(2).
type Limit struct {
	Name     string `json:"name"` // for people
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// None reports whether nothing is changed.
func (c Conditions) None() bool {
	return c.User == nil && c.Umask == nil && c.Nice == nil && len(c.Limits) == 0 && len(c.CPUs) == 0 && c.Cgroup == "" && c.Death == 0
}

func (c Conditions) text() string {
	if c.None() {
		return ""
	}
	b, _ := json.Marshal(c) // of numbers and strings
	return string(b)
}

// before applies the conditions that may require privileges.
func (c Conditions) before() error {
	if c.Cgroup != "" {
		// 0 means the writer (cgroups(7)).
		if err := os.WriteFile(filepath.Join(c.Cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cannot enter the cgroup: %w", err)
		}
	}
	for _, l := range c.Limits {
		// Through package syscall, which restores at exec what Go's start has
		// changed of RLIMIT_NOFILE unless it was set through it.
		if err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("cannot set the limit %s to %s: %w", l.Name, l, err)
		}
	}
	if c.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *c.Nice); err != nil {
			return fmt.Errorf("cannot set the priority to nice %d: %w", *c.Nice, err)
		}
	}
	if len(c.CPUs) > 0 {
		var set unix.CPUSet
		for _, n := range c.CPUs {
			set.Set(n)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("cannot set the CPU affinity to %v: %w", c.CPUs, err)
		}
	}
	return nil
}

// drop applies the rest: the user, and what a change of the user resets.
func (c Conditions) drop() error {
	if c.Umask != nil {
		unix.Umask(*c.Umask)
	}
	if u := c.User; u != nil {
		if err := syscall.Setgroups(u.Groups); err != nil {
			return fmt.Errorf("cannot set the supplementary groups: %w", err)
		}
		if err := syscall.Setresgid(u.GID, u.GID, u.GID); err != nil {
			return fmt.Errorf("cannot switch to group %d: %w", u.GID, err)
		}
		if err := syscall.Setresuid(u.UID, u.UID, u.UID); err != nil {
			return fmt.Errorf("cannot switch to user %d: %w", u.UID, err)
		}
	}
	if c.Death != 0 {
		// After the change of user, which clears it (prctl(2)).
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(c.Death), 0, 0, 0); err != nil {
			return fmt.Errorf("cannot set the signal for the end of the master (--pdeathsig): %w", err)
		}
		if os.Getppid() != c.Parent {
			return errors.New("the master has already exited")
		}
	}
	return nil
}

// String is soft:hard, as --rlimit takes it.
func (l Limit) String() string {
	word := func(n uint64) string {
		if n == unix.RLIM_INFINITY {
			return "unlimited"
		}
		return strconv.FormatUint(n, 10)
	}
	return word(l.Soft) + ":" + word(l.Hard)
}
