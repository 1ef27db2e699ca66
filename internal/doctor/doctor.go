// Package doctor checks whether a machine has what handoff needs, for the user who runs
// it, by trying it. Running services are not touched. It returns findings; the command
// prints them.
package doctor

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// State is the result of a check.
type State string

// The states.
const (
	OK      State = "ok"
	Worse   State = "worse"   // handoff works, with a limitation
	Missing State = "missing" // handoff does not work
	Info    State = "info"
)

// Verdict is what a check has found.
type Verdict struct {
	State  State
	What   string
	Advice string // what it means and what to do; "": nothing
}

// Check examines one property of the machine.
type Check struct {
	Name string
	Look func(Machine) Verdict
}

// Machine has the facts that checks cannot find by trying. Tests replace them.
type Machine struct {
	Release string                     // of the kernel, from uname(2)
	Sysctl  func(path string) string   // value of a file below /proc/sys; "": it does not exist
	Files   func() (soft, hard uint64) // limit of open files
	Root    bool                       // this user is root
}

// This is the machine on which the program runs.
func This() Machine {
	var u unix.Utsname
	unix.Uname(&u)
	return Machine{
		Release: unix.ByteSliceToString(u.Release[:]),
		Sysctl: func(path string) string {
			b, _ := os.ReadFile("/proc/sys/" + path)
			return strings.TrimSpace(string(b))
		},
		Files: func() (soft, hard uint64) {
			var l unix.Rlimit
			unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
			return l.Cur, l.Max
		},
		Root: os.Geteuid() == 0,
	}
}

// Checks returns all checks, in the order in which they are printed.
func Checks() []Check {
	return []Check{
		{"kernel", kernel},
		{"steering", steering},
		{"bind contract", bindContract},
		{"pidfd", pidfd},
		{"tcp_migrate_req", migrateReq},
		{"backlog", backlog},
		{"open files", openFiles},
		{"watching files", watching},
		{"descriptors", descriptors},
		{"keeper's queue", keeperQueue},
		{"CPUs", allowedCPUs},
		{"control socket", controlSocket},
		{"drain preload", drainPreload},
		{"node", nodeVersion},
	}
}

// Finding is a verdict with the name of its check, as `handoff doctor --json` prints it.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	What   string `json:"what"`
	Advice string `json:"advice,omitempty"`
}

// Examine runs all checks and reports whether a requirement is missing.
func Examine(m Machine) (all []Finding, missing bool) {
	for _, c := range Checks() {
		v := c.Look(m)
		all = append(all, Finding{c.Name, v.State, v.What, v.Advice})
		missing = missing || v.State == Missing
	}
	return all, missing
}
