// Package launch knows what the workers of each generation run, and what each of them is
// started with: program, environment, descriptors, conditions. It starts nothing.
//
//	Prepare ──► Program ── Spec(Start) ──► process.Spec
//	Restore ──► Program
//
// A generation's program is resolved once, so that all its workers run the same.
package launch

import (
	"errors"

	"golang.org/x/sys/unix"

	"handoff/internal/repeat"
	"handoff/master/fleet"
	"handoff/master/process"
	"handoff/master/snapshot"
)

// Program is the program and environment of a generation's workers, and what is remembered
// of their starts. The methods that say so may be called on nil, a generation that is not
// known.
type Program struct {
	Err        error    // why it cannot be started; nil: it can
	StderrTail []string // last stderr lines of the worker that failed last
	Ports      []int    // of its slots
	Starts     *repeat.Starts
	launch     *process.Launch // nil: Err says why
	drain      unix.Signal     // passed to its programs; 0: as configured now
}

// Programs are those of the generations that are known.
type Programs struct{ of map[fleet.Gen]*Program }

// New returns a room without programs.
func New() *Programs { return &Programs{map[fleet.Gen]*Program{}} }

// Prepare resolves the command for a generation. The program's Err tells what is wrong.
func (all *Programs) Prepare(gen fleet.Gen, c *process.Command, drain unix.Signal, ports []int) *Program {
	p := &Program{drain: drain, Ports: ports, Starts: repeat.New()}
	p.launch, p.Err = c.Resolve()
	all.of[gen] = p
	return p
}

// Of returns a generation's program; nil: it is not known.
func (all *Programs) Of(gen fleet.Gen) *Program { return all.of[gen] }

// Forget forgets a generation.
func (all *Programs) Forget(gen fleet.Gen) { delete(all.of, gen) }

// Unpinned are the links that the command goes through at each start, see
// [process.Launch].
func (p *Program) Unpinned() []string {
	if p == nil || p.launch == nil {
		return nil
	}
	return p.launch.Unpinned
}

// Dir is the working directory; "": not known.
func (p *Program) Dir() string {
	if p == nil || p.launch == nil {
		return ""
	}
	return p.launch.Dir
}

// Args are what the program is started with; nil: not known.
func (p *Program) Args() []string {
	if p == nil || p.launch == nil {
		return nil
	}
	return p.launch.Args
}

// Drain is the signal that starts a drain; configured is what it is now. Another signal
// than the one that the program was started for would end it, if it does not handle it.
func (p *Program) Drain(configured unix.Signal) unix.Signal {
	if p == nil || p.drain == 0 {
		return configured
	}
	return p.drain
}

// State returns the programs of these generations, for the record.
func (all *Programs) State(known []fleet.Gen) (list []snapshot.Generation) {
	for _, gen := range known {
		p := all.of[gen]
		if p == nil {
			continue
		}
		s := snapshot.Generation{Gen: gen, StderrTail: p.StderrTail, Drain: int(p.drain), Ports: p.Ports}
		if p.Err != nil {
			s.Error = p.Err.Error()
		} else {
			l := p.launch
			s.Path, s.Args, s.Dir, s.Env = snapshot.Text(l.Path), snapshot.Texts(l.Args), snapshot.Text(l.Dir), snapshot.Texts(l.Env)
		}
		list = append(list, s)
	}
	return list
}

// Restore takes over the programs of a record.
func (all *Programs) Restore(list []snapshot.Generation) {
	for _, s := range list {
		p := &Program{StderrTail: s.StderrTail, drain: unix.Signal(s.Drain), Ports: s.Ports, Starts: repeat.New()}
		if s.Error != "" {
			p.Err = errors.New(s.Error)
		} else {
			p.launch = &process.Launch{Path: string(s.Path), Args: snapshot.Strings(s.Args), Dir: string(s.Dir), Env: snapshot.Strings(s.Env)}
		}
		all.of[s.Gen] = p
	}
}
