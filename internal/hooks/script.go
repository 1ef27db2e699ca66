package hooks

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/events"
)

//go:embed rackhooks.cjs
var rackhooks string

// script is the process that runs a .rackhooks.js.
type script struct {
	path  string
	stdin *os.File
	ended chan struct{}
	pidfd int
	pid   int
}

// toScript passes an event to the script. If the script has just exited, it is restarted
// for it.
func (r *Runner) toScript(cfg Config, e event) {
	for range 2 {
		if !r.scriptRuns(cfg, e) {
			return
		}
		// A hanging script blocks the other hooks for at most the hook timeout.
		r.script.stdin.SetWriteDeadline(time.Now().Add(cfg.Timeout))
		_, err := r.script.stdin.Write(e.line)
		if err == nil {
			return
		}
		r.log.Warn("Hook failed: "+cfg.Script+" does not respond; restarting it", "event", events.HookFailed, "hook", e.name)
		r.script.kill()
		r.script.end()
		r.script = nil
		if !errors.Is(err, syscall.EPIPE) {
			return
		}
	}
}

// scriptRuns starts the script's process where it is not there; false: it is not to run, or
// cannot.
func (r *Runner) scriptRuns(cfg Config, e event) bool {
	if r.script != nil && (r.script.path != cfg.Script || r.script.gone()) {
		r.script.end()
		r.script = nil
	}
	if cfg.Script == "" || r.script != nil {
		return r.script != nil
	}
	if _, err := os.Stat(cfg.Script); errors.Is(err, os.ErrNotExist) {
		return false
	}
	var err error
	if r.script, err = r.startScript(cfg); err != nil {
		r.log.Warn("Hook failed: "+err.Error(), "event", events.HookFailed, "hook", e.name)
		return false
	}
	return true
}

func (r *Runner) startScript(cfg Config) (*script, error) {
	info, err := os.Stat(cfg.Script)
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; cfg.As == nil && owner != 0 && int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to another user (%d) and would run as this one; set --user", cfg.Script, owner)
	}
	if mode := info.Mode().Perm(); cfg.As == nil && os.Geteuid() == 0 && (mode&0o002 != 0 || mode&0o020 != 0 && info.Sys().(*syscall.Stat_t).Gid != 0) {
		return nil, fmt.Errorf("others can write %s (mode %#o), and it would run as root; chmod go-w it, or set --user", cfg.Script, mode)
	}
	cmd := exec.Command("node", "-e", rackhooks, "--", cfg.Script)
	cmd.Dir, cmd.Env = cfg.Dir, cfg.Env
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cfg.As, PidFD: &pidfd}
	cmd.WaitDelay = time.Second
	theirs, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		theirs.Close()
		in.Close()
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, write, write
	err = cmd.Start()
	theirs.Close()
	write.Close()
	if err != nil {
		in.Close()
		read.Close()
		return nil, err
	}
	s := &script{path: cfg.Script, stdin: in, ended: make(chan struct{}), pidfd: pidfd, pid: cmd.Process.Pid}
	go r.logOutput(read, "rackhooks") // ends with the process
	go func() {                       // ends with the process
		cmd.Wait()
		close(s.ended)
	}()
	return s, nil
}

func (s *script) kill() { killTree(s.pidfd, s.pid) }

func (s *script) gone() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// end closes the script's input, and waits briefly for it to finish. It is not used any
// more then.
func (s *script) end() {
	if s == nil {
		return
	}
	s.stdin.Close()
	select {
	case <-s.ended:
	case <-time.After(scriptTimeout):
		s.kill()
	}
	unix.Close(s.pidfd)
}

const scriptTimeout = 2 * time.Second
