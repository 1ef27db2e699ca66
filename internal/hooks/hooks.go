// Package hooks runs other people's commands at events. Whatever they do, the
// service goes on: they have a time limit, their output goes to the log, bounded,
// and their end changes nothing, but for those that may refuse.
package hooks

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed rackhooks.cjs
var rackhooks string

// Config is what runs when.
type Config struct {
	Commands map[string][]string // of the shell, by event
	Timeout  time.Duration       // of each
	Dir      string              // where they run
	Env      []string            // what they have besides the event
	Script   string              // a .rackhooks.js; "": none
	// As is who runs the script; nil: this user, and then it must be this user's own,
	// or root's.
	As *syscall.Credential
}

// Runner runs hooks one after another, in the order of the events. It is safe for
// concurrent use.
type Runner struct {
	log *slog.Logger

	mu     sync.Mutex // guards all below; held for moments
	cfg    Config
	queue  []event
	closed bool
	lost   int
	wake   chan struct{} // never closed; has a token when there is something to do
	done   chan struct{} // closed when the queue is done, after Close

	script *script // of the goroutine
}

type event struct {
	name string
	line []byte // as JSON
}

// queueMost is how many events wait for hooks that are slow. What comes on top is
// dropped, and said.
const queueMost = 1000

// New returns a Runner. Its goroutine ends with Close.
func New(cfg Config, log *slog.Logger) *Runner {
	r := &Runner{log: log, cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go r.work()
	return r
}

// Set changes what runs, from the next event on.
func (r *Runner) Set(cfg Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg = cfg
}

// Event takes an event as a line of JSON with the key event. It does not block.
func (r *Runner) Event(line []byte) {
	var e struct{ Event string }
	if json.Unmarshal(line, &e) != nil || e.Event == "" || strings.HasPrefix(e.Event, "hook.") {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cfg.Commands[e.Event]) == 0 && r.cfg.Script == "" || r.closed {
		return
	}
	if len(r.queue) >= queueMost {
		r.lost++
		return
	}
	r.queue = append(r.queue, event{e.Event, bytes.Clone(line)})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close ends the Runner when what has happened has had its hooks, or after patience.
func (r *Runner) Close(patience time.Duration) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case <-r.done:
	case <-time.After(patience):
	}
}

func (r *Runner) work() {
	defer close(r.done)
	for range r.wake {
		for {
			r.mu.Lock()
			cfg, lost, closed := r.cfg, r.lost, r.closed
			var e event
			if len(r.queue) > 0 {
				e, r.queue = r.queue[0], r.queue[1:]
			}
			r.lost = 0
			r.mu.Unlock()
			if lost > 0 {
				r.log.Warn("Hooks are too slow: events were dropped", "event", "hook.lost", "events", lost)
			}
			if e.name == "" {
				if closed {
					r.script.end()
					return
				}
				break
			}
			for _, command := range cfg.Commands[e.name] {
				if err := r.run(cfg, e, command); err != nil {
					r.log.Warn("Hook failed: "+err.Error(), "event", "hook.failed", "hook", e.name)
				}
			}
			r.toScript(cfg, e)
		}
	}
}

// Ask runs the hooks that may refuse; the first error is the refusal. about is what
// they are told.
func (r *Runner) Ask(name string, about map[string]any) error {
	r.mu.Lock()
	cfg := r.cfg
	r.mu.Unlock()
	told := map[string]any{"event": name, "time": time.Now()}
	for k, v := range about {
		told[k] = v
	}
	line, err := json.Marshal(told)
	if err != nil {
		return err
	}
	for _, command := range cfg.Commands[name] {
		if err := r.run(cfg, event{name, append(line, '\n')}, command); err != nil {
			return fmt.Errorf("%s refuses: %w", name, err)
		}
	}
	return nil
}

// outputMost and linesMost bound what of a hook's output is logged.
const (
	lineMost  = 1 << 10
	linesMost = 100
)

// run runs one command. The error says how it ended.
func (r *Runner) run(cfg Config, e event, command string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir, cmd.Env = cfg.Dir, append(slices.Clone(cfg.Env), variables(e)...)
	cmd.Stdin = bytes.NewReader(e.line)
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	cmd.WaitDelay = time.Second // for what it leaves behind with its output
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		return err
	}
	said := make(chan string, 1)
	go func() { said <- r.logOutput(read, e.name) }() // ends with the pipe
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	select {
	case err = <-ended:
	case <-ctx.Done():
		killGroup(pidfd, cmd.Process.Pid)
		<-ended
		err = fmt.Errorf("not done within %v, killed", cfg.Timeout)
	}
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	read.SetReadDeadline(time.Now().Add(lastWords)) // what it has left behind may have the other end
	if last := <-said; err != nil && last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// lastWords is how long the end of a hook's output is waited for.
const lastWords = 200 * time.Millisecond

// killGroup kills a process that is not reaped yet, with its group.
func killGroup(pidfd, pid int) {
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
	if unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, group) != nil {
		unix.Kill(-pid, unix.SIGKILL)
	}
}

// logOutput logs what a hook writes, and returns its last line.
func (r *Runner) logOutput(in *os.File, hook string) (last string) {
	defer in.Close()
	lines := bufio.NewReaderSize(in, lineMost)
	for n := 0; ; {
		text, _, err := lines.ReadLine()
		if len(text) > 0 {
			last = strings.ToValidUTF8(string(text), "?")
			if n++; n <= linesMost {
				r.log.Info("Hook: "+last, "event", "hook.output", "hook", hook)
			}
		}
		if err != nil {
			return last
		}
	}
}

// variables are the event's fields for a shell: HANDOFF_EVENT, HANDOFF_SLOT…
func variables(e event) (env []string) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(e.line))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return nil
	}
	for k, v := range fields {
		switch v.(type) {
		case string, json.Number, bool:
			if text := fmt.Sprint(v); !strings.ContainsRune(text, 0) {
				env = append(env, "HANDOFF_"+strings.ToUpper(strings.ReplaceAll(k, "-", "_"))+"="+text)
			}
		}
	}
	slices.Sort(env)
	return env
}

// script is the process that runs a .rackhooks.js.
type script struct {
	path  string
	stdin *os.File
	ended chan struct{}
	kill  func()
}

// toScript gives an event to the script, whose process is started where it is not
// there.
func (r *Runner) toScript(cfg Config, e event) {
	if r.script != nil && (r.script.path != cfg.Script || r.script.gone()) {
		r.script.end()
		r.script = nil
	}
	if cfg.Script == "" {
		return
	}
	if r.script == nil {
		if _, err := os.Stat(cfg.Script); errors.Is(err, os.ErrNotExist) {
			return
		}
		var err error
		if r.script, err = r.startScript(cfg); err != nil {
			r.log.Warn("Hook failed: "+err.Error(), "event", "hook.failed", "hook", e.name)
			return
		}
	}
	// One that is stuck holds up the others for as long as a hook may.
	r.script.stdin.SetWriteDeadline(time.Now().Add(cfg.Timeout))
	if _, err := r.script.stdin.Write(e.line); err != nil {
		r.log.Warn("Hook failed: "+cfg.Script+" does not go on, it is started anew", "event", "hook.failed", "hook", e.name)
		r.script.kill()
		r.script.end()
		r.script = nil
	}
}

func (r *Runner) startScript(cfg Config) (*script, error) {
	info, err := os.Stat(cfg.Script)
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; cfg.As == nil && owner != 0 && int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("%s is another user's (%d): it would run as this one; give --user", cfg.Script, owner)
	}
	cmd := exec.Command("node", "-e", rackhooks, "--", cfg.Script)
	cmd.Dir, cmd.Env = cfg.Dir, cfg.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cfg.As}
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
	s := &script{path: cfg.Script, stdin: in, ended: make(chan struct{}), kill: func() { cmd.Process.Kill() }}
	go r.logOutput(read, "rackhooks") // ends with the process
	go func() {                       // ends with the process
		cmd.Wait()
		close(s.ended)
	}()
	return s, nil
}

func (s *script) gone() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// end closes the script's input, and gives it a moment to do what it was told.
func (s *script) end() {
	if s == nil {
		return
	}
	s.stdin.Close()
	select {
	case <-s.ended:
	case <-time.After(scriptPatience):
		s.kill()
	}
}

const scriptPatience = 2 * time.Second
