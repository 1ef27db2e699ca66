package prove

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// Against is another tool that runs a program, by commands of the shell. Start begins
// it, and Stop ends it.
type Against struct {
	Command string
	Reload  string // with $PID, the process of Command; it is done when this ends
	Env     []string
	Output  string
	Address string
	Pause   time.Duration // after each reload, since the tool does not say when it is done

	cmd   *exec.Cmd
	pidfd int
	ended chan struct{}
}

// Start starts the tool and waits until it answers.
func (a *Against) Start(ctx context.Context) error {
	out, err := os.Create(a.Output)
	if err != nil {
		return err
	}
	defer out.Close()
	a.cmd = exec.Command("sh", "-c", "exec "+a.Command)
	if strings.ContainsAny(a.Command, ";|&\n") {
		a.cmd = exec.Command("sh", "-c", a.Command)
	}
	a.cmd.Env, a.cmd.Stdout, a.cmd.Stderr = a.Env, out, out
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &a.pidfd}
	if err := a.cmd.Start(); err != nil {
		return err
	}
	a.ended = make(chan struct{})
	go func() { // ends with the tool
		a.cmd.Wait()
		close(a.ended)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := Answers(ctx, a.Address); err != nil {
		words, _ := os.ReadFile(a.Output)
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(words)))
	}
	return nil
}

// Stop ends the tool, and its whole process group when that takes long.
func (a *Against) Stop() {
	if a.cmd == nil || a.cmd.Process == nil {
		return
	}
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(8 * time.Second):
	}
	group := a.cmd.Process.Pid
	for p := range linux.Processes() {
		if p.Group == group {
			kill(p.PID)
		}
	}
	<-a.ended
	unix.Close(a.pidfd)
}

// Addr is where it answers.
func (a *Against) Addr() string { return a.Address }

// Do does one action, of those that any tool has.
func (a *Against) Do(ctx context.Context, d Action) (out Outcome, err error) {
	switch d {
	case Reload:
		if a.Reload == "" {
			return out, fmt.Errorf("%w: --against-reload says how", ErrCannot)
		}
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		c := exec.CommandContext(ctx, "sh", "-c", a.Reload)
		c.WaitDelay = time.Second // it may leave something behind that has its output
		c.Env = slices.Concat(a.Env, []string{"PID=" + strconv.Itoa(a.cmd.Process.Pid)})
		if words, err := c.CombinedOutput(); err != nil {
			return out, fmt.Errorf("%s: %w: %s", a.Reload, err, short(strings.TrimSpace(string(words))))
		}
		wait(ctx, a.Pause)
	case KillMaster:
		if err := unix.PidfdSendSignal(a.pidfd, unix.SIGKILL, nil, 0); err != nil {
			return out, fmt.Errorf("it has ended: %w", err)
		}
		wait(ctx, a.Pause)
	default:
		return out, ErrCannot
	}
	return out, nil
}

// Settle gives old processes a moment: the tool does not say when they have gone.
func (a *Against) Settle(ctx context.Context) error {
	wait(ctx, a.Pause)
	return nil
}

// Inside is never known.
func (a *Against) Inside(string) bool { return false }
