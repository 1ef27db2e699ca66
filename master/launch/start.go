package launch

import (
	"os"
	"strconv"
	"strings"
	"time"

	"handoff/internal/bindintercept"
	"handoff/master/fleet"
	"handoff/master/process"
	"handoff/master/snapshot"
)

// Start is one start of a worker, as configuration and contract want it.
type Start struct {
	Gen          fleet.Gen
	Worker       int
	Slot         int
	Service      string                      // "": it has no name
	Instance     string                      // of the keeper; "": none
	Environ      func(env []string) []string // adds to the environment; nil: nothing
	SlotVariable string                      // another name for WORKER_ID; "": none
	Ports        []int                       // of the slots, as configured now
	MaxRequests  int                         // that it is to serve; 0: no limit
	Watchdog     time.Duration               // how often it must say that it is alive; 0: never
	Notify       string                      // the address of its notify socket; "": none
	Conditions   bindintercept.Conditions    // of all workers, of which it gets its CPU
	Stdout       process.Stdout

	// Sockets and their names are passed as systemd does (LISTEN_FDS).
	Sockets []int
	Names   []string
	// Channel is its end of the session's socketpair, passed after the sockets; -1: none.
	// With Filter the filter of bind(2) is sent over it. ContractEnv adds the contract's
	// variables; nil: none.
	Channel     int
	Filter      bool
	ContractEnv func(channel int) []string
}

// Spec is how to start a worker of the program.
func (p *Program) Spec(s Start) process.Spec {
	l := *p.launch
	if s.Environ != nil {
		l.Env = s.Environ(l.Env)
	}
	if s.SlotVariable != "" {
		l = l.With(s.SlotVariable, strconv.Itoa(s.Slot))
	}
	if n := s.Port(); n > 0 {
		port := strconv.Itoa(n)
		l = l.With("PORT", port).With("port", port)
	}
	spec := process.Spec{Launch: &l, Env: s.env(), Files: s.Sockets, Stdout: s.Stdout}
	channel := -1
	if s.Channel >= 0 {
		spec.Files = append(s.Sockets[:len(s.Sockets):len(s.Sockets)], s.Channel)
		if s.Filter {
			channel = s.channelFD()
		}
	}
	// Without a filter the trampoline sets LISTEN_PID and the conditions.
	if conditions := s.conditions(); channel >= 0 || len(s.Sockets) > 0 || !conditions.None() {
		spec.Trampoline = bindintercept.Prefix(channel, len(s.Sockets), conditions)
	}
	return spec
}

// Port is the port of the slot; 0: it has none.
func (s Start) Port() int {
	if s.Slot < len(s.Ports) {
		return s.Ports[s.Slot]
	}
	return 0
}

// channelFD is the descriptor of the channel in the worker: the first after its sockets.
func (s Start) channelFD() int { return 3 + len(s.Sockets) }

// env are the variables that handoff tells a worker about itself by.
func (s Start) env() []string {
	env := []string{"WORKER_ID=" + strconv.Itoa(s.Slot), "HANDOFF_GENERATION=" + strconv.Itoa(int(s.Gen)), "HANDOFF_WORKER=" + strconv.Itoa(s.Worker)}
	if s.Service != "" {
		env = append(env, snapshot.ServiceVariable+"="+s.Service)
	}
	if s.Instance != "" {
		env = append(env, "HANDOFF_INSTANCE="+s.Instance)
	}
	if s.MaxRequests > 0 {
		env = append(env, "HANDOFF_MAX_REQUESTS="+strconv.Itoa(s.MaxRequests))
	}
	if len(s.Sockets) > 0 {
		names := make([]string, len(s.Names))
		for i, name := range s.Names {
			if names[i] = name; name == "" {
				names[i] = "unknown" // systemd's value for a socket without a name
			}
		}
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(s.Sockets)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	if s.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(s.Watchdog.Microseconds(), 10))
	}
	if s.ContractEnv != nil {
		env = append(env, s.ContractEnv(s.channelFD())...)
	}
	if s.Notify != "" {
		env = append(env, "NOTIFY_SOCKET="+s.Notify)
	}
	return env
}

// conditions are the start conditions of the worker's slot.
func (s Start) conditions() bindintercept.Conditions {
	c := s.Conditions
	if len(c.CPUs) > 0 {
		c.CPUs = []int{c.CPUs[s.Slot%len(c.CPUs)]}
	}
	if c.Death != 0 {
		c.Parent = os.Getpid()
	}
	return c
}
