package bindprop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Bare is the side of programs by themselves. One pair at a time is performed there.
type Bare struct {
	control *Control
	cmd     *exec.Cmd
	runner  *Runner
	prober  *Leader
}

// NewBare starts a runner of the program in a network namespace of its own; its control
// socket is in dir.
func NewBare(program, dir string) (*Bare, error) {
	path := filepath.Join(dir, "bare")
	control, err := Listen(path)
	if err != nil {
		return nil, err
	}
	b := &Bare{control: control, cmd: exec.Command(program, "netns", program, "runner", path, "bare")}
	b.cmd.Stderr = os.Stderr
	if err = b.cmd.Start(); err != nil {
		control.Close()
		return nil, err
	}
	if b.runner, err = control.Runner("bare"); err == nil {
		b.prober, err = b.runner.Leader()
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("cannot start a bare program: %w", err)
	}
	return b, nil
}

// Close ends the runner.
func (b *Bare) Close() {
	b.control.Close()
	b.cmd.Process.Kill()
	b.cmd.Wait()
}

// Begin, Finish and Serve have nothing to do.
func (b *Bare) Begin() error    { return nil }
func (b *Bare) Finish() error   { return nil }
func (b *Bare) Serve(int) error { return nil }

// Start forks a leader, and End ends it.
func (b *Bare) Start(int) (*Leader, error) { return b.runner.Leader() }
func (b *Bare) End(_ int, l *Leader) error { return l.End() }

// Prober is a leader too.
func (b *Bare) Prober() *Leader { return b.prober }

// Bare is true.
func (b *Bare) Bare() bool { return true }
