// Package process starts programs, and ends them with what they have started. It knows
// nothing of workers, fleets or protocols: who calls says which descriptors a program
// is given, and what they mean.
//
//	Command ── Resolve ──► Launch ── Start ──► Process ──┐
//	                                 Adopt ──► Process ──┴─► AwaitDeath ──► Reap
//
// A Process is identified by its pidfd; its pid is for people. It is not reaped before
// Reap, so that until then its pid, and its group's, mean the same process.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/internal/tail"
)

// Process is a program that runs, the leader of a process group of its own. Its
// methods belong to one goroutine; AwaitDeath, AwaitReaped and Copied to any.
type Process struct {
	pidfd   *linux.Pidfd
	adopted bool          // its parent is another process, which reaps it
	stdout  *os.File      // read ends; nil: it is not read here
	stderr  *os.File      //
	last    *tail.Tail    // of stderr
	copied  chan struct{} // closed when its output has ended, by the one that copies it
}

// maxTail is how much of stderr is remembered, in bytes.
const maxTail = 4 << 10

// Spec is a start.
type Spec struct {
	Launch *Launch
	Env    []string // beyond Launch's
	// Trampoline are the arguments of this very program that make it become another
	// one, to which path and arguments are appended; nil: the other one is executed
	// directly. This program is there also when its file has been replaced on disk.
	Trampoline []string
	// Files are the descriptors that it is given from 3 on, and nothing else; they stay
	// the caller's.
	Files  []int
	Stdout Stdout
}

// Stdout is what a program has as its stdout.
type Stdout int

const (
	Own      Stdout = iota // this process's own
	Piped                  // a pipe that is read here
	Terminal               // a terminal that is read here, of the size of this process's own; a pipe where there is none
)

// Start starts a program. Its stdin is /dev/null, its stderr a pipe, so that the last
// lines can be remembered. It has a process group of its own, so that Ctrl-C at a
// terminal does not reach it.
func Start(s Spec) (p *Process, err error) {
	var theirs []*os.File // ends, which we close in any case
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	p = &Process{last: tail.New(maxTail), copied: make(chan struct{})}
	defer func(p *Process) {
		if err != nil {
			p.closeOutput()
		}
	}(p)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, null)
	write, err := pipe(&p.stderr)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, write)
	files := []uintptr{null.Fd(), 1, write.Fd()}
	if s.Stdout != Own {
		if write, err = p.openStdout(s.Stdout); err != nil {
			return nil, err
		}
		theirs = append(theirs, write)
		files[1] = write.Fd()
	}
	for _, fd := range s.Files {
		files = append(files, uintptr(fd))
	}
	path, args := s.Launch.Path, s.Launch.Args
	if s.Trampoline != nil {
		path, args = "/proc/self/exe", append(append(s.Trampoline[:len(s.Trampoline):len(s.Trampoline)], path), args...)
	}
	env := append(s.Launch.Env[:len(s.Launch.Env):len(s.Launch.Env)], s.Env...)
	if p.pidfd, err = fork(path, args, &syscall.ProcAttr{Dir: s.Launch.Dir, Env: env, Files: files}); err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", s.Launch.Path, err)
	}
	return p, nil
}

func fork(path string, args []string, attr *syscall.ProcAttr) (*linux.Pidfd, error) {
	fd := -1
	attr.Sys = &syscall.SysProcAttr{Setpgid: true, PidFD: &fd}
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return nil, err
	}
	var pidfd *linux.Pidfd
	if fd < 0 {
		err = errors.New("the kernel returned no pidfd (requires Linux 5.4 or later)")
	} else if pidfd, err = linux.NewPidfd(pid, fd); err == nil {
		return pidfd, nil
	}
	syscall.Kill(pid, syscall.SIGKILL)
	syscall.Wait4(pid, nil, 0, nil)
	return nil, err
}

// Adopt takes over a process that somebody else has started and will reap, with the
// read ends of its output; nil: there is none.
func Adopt(pidfd *linux.Pidfd, stdout, stderr *os.File) *Process {
	return &Process{pidfd: pidfd, adopted: true, stdout: stdout, stderr: stderr, last: tail.New(maxTail), copied: make(chan struct{})}
}

// PID is its number, for people.
func (p *Process) PID() int { return p.pidfd.PID() }

// Adopted tells whether somebody else has started it.
func (p *Process) Adopted() bool { return p.adopted }

// Pidfd is what it is identified by, until Reap.
func (p *Process) Pidfd() *linux.Pidfd { return p.pidfd }

// Output are the read ends of its output, for who keeps duplicates; nil: there is none.
func (p *Process) Output() (stdout, stderr *os.File) { return p.stdout, p.stderr }

// AwaitDeath blocks until the process is dead.
func (p *Process) AwaitDeath() error { return p.pidfd.AwaitDeath(time.Time{}) }

// AwaitReaped blocks until a dead process that was adopted has been reaped, for a
// moment: then the kernel tells how it ended. One's own is for Reap.
func (p *Process) AwaitReaped() {
	if p.adopted {
		p.pidfd.AwaitReaped(reapTimeout)
	}
}

// reapTimeout is how long the parent of an adopted process may take to reap it.
const reapTimeout = 200 * time.Millisecond

// Reap returns how a dead process ended, and lets go of it.
func (p *Process) Reap() (unix.WaitStatus, error) {
	if p.adopted {
		defer p.pidfd.Close()
		return p.pidfd.Exit()
	}
	var status unix.WaitStatus
	for {
		pid, err := unix.Wait4(p.PID(), &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("cannot reap %d: %w", p.PID(), err)
		case pid == 0:
			return 0, fmt.Errorf("cannot reap %d: it is still running", p.PID())
		default:
			p.pidfd.Close()
			return status, nil
		}
	}
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s unix.Signal) error { return p.pidfd.TrySignal(s) }

// SignalGroup sends a signal to the process's group, if there is still anybody in it.
// After the death it reaches what the process has left behind there.
func (p *Process) SignalGroup(s unix.Signal) error {
	err := p.pidfd.SignalGroup(s)
	if (err == unix.EINVAL || err == unix.ENOSYS) && !p.adopted { // before Linux 6.9
		// The pid is not reaped yet, so the number still means this group.
		err = unix.Kill(-p.PID(), s)
	}
	if err == unix.ESRCH {
		return nil
	}
	return err
}

// Kill kills the process, and what it has started in its group.
func (p *Process) Kill() error {
	return errors.Join(p.SignalGroup(unix.SIGKILL), p.Signal(unix.SIGKILL)) // it may have left its group
}

// CopyOutput begins to pass on what the process writes, each stream as it comes, until
// nobody has the other ends any more, or StopCopying is called; then it closes the read
// ends, and Copied.
func (p *Process) CopyOutput(stdout, stderr io.Writer) {
	done := make(chan struct{})
	go func() { // ends with the pipe
		defer close(done)
		if p.stdout != nil {
			passThrough(p.stdout, stdout, nil)
		}
	}()
	go func() { // ends with the pipes
		defer close(p.copied)
		if p.stderr != nil {
			passThrough(p.stderr, stderr, p.last)
		}
		<-done
	}()
}

// Copied is closed when all its output has been passed on.
func (p *Process) Copied() <-chan struct{} { return p.copied }

// StderrTail are the last lines that it has written to stderr, n at most.
func (p *Process) StderrTail(n int) []string { return p.last.Lines(n) }
