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

// Against is another tool that runs a program, controlled by shell commands. Start starts
// it, and Stop ends it.
type Against struct {
	Command string
	Reload  string // with $PID, the process of Command; the reload is complete when it exits
	Env     []string
	Output  string
	Address string
	Pause   time.Duration // after each reload, since the tool does not report completion

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
		output, _ := os.ReadFile(a.Output)
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(output)))
	}
	return nil
}

// Stop ends the tool, and kills its process group if that takes too long.
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

// Addr is the address at which it answers.
func (a *Against) Addr() string { return a.Address }

// Do does one of the actions that every tool has.
func (a *Against) Do(ctx context.Context, d Action) (out Outcome, err error) {
	switch d {
	case Reload:
		if a.Reload == "" {
			return out, fmt.Errorf("%w without --against-reload", ErrCannot)
		}
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		c := exec.CommandContext(ctx, "sh", "-c", a.Reload)
		c.WaitDelay = time.Second // a child that it leaves behind may have its output open
		c.Env = slices.Concat(a.Env, []string{"PID=" + strconv.Itoa(a.cmd.Process.Pid)})
		if output, err := c.CombinedOutput(); err != nil {
			return out, fmt.Errorf("%s: %w: %s", a.Reload, err, short(strings.TrimSpace(string(output))))
		}
		wait(ctx, a.Pause)
	case KillMaster:
		if err := unix.PidfdSendSignal(a.pidfd, unix.SIGKILL, nil, 0); err != nil {
			return out, fmt.Errorf("the tool has exited: %w", err)
		}
		wait(ctx, a.Pause)
	default:
		return out, ErrCannot
	}
	return out, nil
}

// Settle gives old processes time to exit, since the tool does not report it.
func (a *Against) Settle(ctx context.Context) error {
	wait(ctx, a.Pause)
	return nil
}

// Inside returns false: it is not known of other tools.
func (a *Against) Inside(string) bool { return false }
