// Package doctor tries what handoff needs of a machine, as the user who runs it. What
// runs is not touched. It says what it has found; how that is printed is the command's.
package doctor

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what a check has come to.
type State string

// The states.
const (
	OK      State = "ok"
	Worse   State = "worse"   // it works, with less
	Missing State = "missing" // something does not work
	Info    State = "info"
)

// Verdict is the answer of a check.
type Verdict struct {
	State  State
	What   string
	Advice string // what to do, or what it means; "": nothing
}

// Check is one look at the machine.
type Check struct {
	Name string
	Look func(Machine) Verdict
}

// Machine is what checks go by that cannot be tried, and that a test may say otherwise.
type Machine struct {
	Release string                     // of the kernel, as uname(2) has it
	Sysctl  func(path string) string   // by its path below /proc/sys; "": there is none
	Files   func() (soft, hard uint64) // limit of open files
	Root    bool                       // this user is root
}

// This is the machine that this runs on.
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

// Checks are all of them, in the order in which they are read.
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

// Finding is a verdict with the name of its check, as `handoff doctor --json` has it.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	What   string `json:"what"`
	Advice string `json:"advice,omitempty"`
}

// Examine looks at everything, and tells whether something that is needed is missing.
func Examine(m Machine) (all []Finding, missing bool) {
	for _, c := range Checks() {
		v := c.Look(m)
		all = append(all, Finding{c.Name, v.State, v.What, v.Advice})
		missing = missing || v.State == Missing
	}
	return all, missing
}
