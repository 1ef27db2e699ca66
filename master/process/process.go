// Package process starts programs, and ends them with their process groups. It knows
// nothing of workers, fleets or protocols: the caller decides which descriptors a program
// gets.
//
//	Command ── Resolve ──► Launch ── Start ──► Process ──┐
//	                                 Adopt ──► Process ──┴─► AwaitDeath ──► Reap
//
// A Process is identified by its pidfd; its pid is for people. It is reaped only by Reap,
// so that until then its pid, and its group's, cannot be reused.
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

// Process is a running program, the leader of a process group of its own. Its methods
// belong to one goroutine, except AwaitDeath, AwaitRead and Copied.
type Process struct {
	pidfd   *linux.Pidfd
	adopted bool          // its parent is another process, which reaps it
	stdout  *os.File      // read ends; nil: not read here
	stderr  *os.File      //
	last    *tail.Tail    // of stderr
	copied  chan struct{} // closed by the copying goroutine when its output has ended
}

// maxTail is how much of stderr is kept, in bytes.
const maxTail = 4 << 10

// Spec describes a start.
type Spec struct {
	Launch *Launch
	Env    []string // beyond Launch's
	// Trampoline are arguments of handoff's own binary that make it execute the program,
	// whose path and arguments are appended; nil: the program is executed directly. It
	// works also after the binary was replaced on disk.
	Trampoline []string
	// Files are the descriptors that it gets, from 3 on, and no others. The caller owns
	// them.
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
// lines can be kept. It has a process group of its own, so that Ctrl-C at a terminal does
// not reach it.
func Start(s Spec) (p *Process, err error) {
	var theirs []*os.File // the program's ends, always closed here
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

// Adopt takes over a process that another process has started and will reap, with the
// read ends of its output; nil: none.
func Adopt(pidfd *linux.Pidfd, stdout, stderr *os.File) *Process {
	return &Process{pidfd: pidfd, adopted: true, stdout: stdout, stderr: stderr, last: tail.New(maxTail), copied: make(chan struct{})}
}

// PID is its pid, for people.
func (p *Process) PID() int { return p.pidfd.PID() }

// Adopted reports whether another process has started it.
func (p *Process) Adopted() bool { return p.adopted }

// Pidfd is its pidfd, valid until Reap.
func (p *Process) Pidfd() *linux.Pidfd { return p.pidfd }

// Output returns the read ends of its output, for storing duplicates; nil: none.
func (p *Process) Output() (stdout, stderr *os.File) { return p.stdout, p.stderr }

// AwaitDeath blocks until the process is dead.
func (p *Process) AwaitDeath() error { return p.pidfd.AwaitDeath(time.Time{}) }

// awaitReaped blocks briefly until a dead adopted process has been reaped: then the
// kernel reports its exit code. Other processes are reaped by Reap.
func (p *Process) awaitReaped() {
	if p.adopted {
		p.pidfd.AwaitReaped(reapTimeout)
	}
}

// reapTimeout is how long the parent of an adopted process may take to reap it.
const reapTimeout = 200 * time.Millisecond

// AwaitRead blocks, after the death of the process, until it is reaped, if it is adopted, and
// what it said last is read: its output, and its messages, whose reader closes heard. A child
// may have the other ends still, so this ends after grace, and again as long as busy says
// that the reader waits for something else.
func (p *Process) AwaitRead(grace time.Duration, heard <-chan struct{}, busy func() bool) {
	p.awaitReaped()
	again := time.NewTicker(grace)
	defer again.Stop()
	for open, ends := true, []<-chan struct{}{heard, p.copied}; open && len(ends) > 0; {
		select {
		case <-ends[0]:
			ends = ends[1:]
		case <-again.C:
			open = busy()
		}
	}
}

// Reap returns the exit status of a dead process, and closes its pidfd.
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

// Signal sends a signal to the process only.
func (p *Process) Signal(s unix.Signal) error { return p.pidfd.TrySignal(s) }

// SignalGroup sends a signal to the process's group, if it has members. After the death
// it reaches the processes that are left there.
func (p *Process) SignalGroup(s unix.Signal) error {
	err := p.pidfd.SignalGroup(s)
	if (err == unix.EINVAL || err == unix.ENOSYS) && !p.adopted { // before Linux 6.9
		// The process is not reaped yet, so the number still means this group.
		err = unix.Kill(-p.PID(), s)
	}
	if err == unix.ESRCH {
		return nil
	}
	return err
}

// Kill kills the process and its group.
func (p *Process) Kill() error {
	return errors.Join(p.SignalGroup(unix.SIGKILL), p.Signal(unix.SIGKILL)) // it may have left its group
}

// CopyOutput starts to copy the output of the process, until the other ends are closed,
// or StopCopying is called; then it closes the read ends, and Copied.
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

// Copied is closed when all its output has been copied.
func (p *Process) Copied() <-chan struct{} { return p.copied }

// StderrTail returns the last lines of its stderr, at most n.
func (p *Process) StderrTail(n int) []string { return p.last.Lines(n) }
