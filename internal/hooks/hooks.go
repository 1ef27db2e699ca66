// Package hooks runs commands of the user at events. They cannot disturb the service:
// they have a time limit, their output goes to the log, with a limit, and their exit code
// has no effect, except for hooks that can refuse.
package hooks

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
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

	"handoff/internal/events"
	"handoff/internal/linux"
)

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

// maxQueue is how many events wait for slow hooks. More are dropped, and reported.
const maxQueue = 1000

// New returns a Runner. Its goroutine ends with Close.
func New(cfg Config, log *slog.Logger) *Runner {
	r := &Runner{log: log, cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go r.work()
	return r
}

// Set changes the hooks, from the next event on.
func (r *Runner) Set(cfg Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg = cfg
}

// Event queues an event, a line of JSON with the key event. It does not block.
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
	if len(r.queue) >= maxQueue {
		r.lost++
		return
	}
	r.queue = append(r.queue, event{e.Event, bytes.Clone(line)})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close ends the Runner when the hooks of queued events have run, or after timeout.
func (r *Runner) Close(timeout time.Duration) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case <-r.done:
	case <-time.After(timeout):
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
				r.log.Warn("Hooks are too slow; events dropped", "event", events.HookLost, "events", lost)
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
					r.log.Warn("Hook failed: "+err.Error(), "event", events.HookFailed, "hook", e.name)
				}
			}
			r.toScript(cfg, e)
		}
	}
}

// Ask runs the hooks that can refuse; the first error is the refusal. about is passed to
// them.
func (r *Runner) Ask(name string, about map[string]any) error {
	r.mu.Lock()
	cfg := r.cfg
	r.mu.Unlock()
	fields := map[string]any{"event": name, "time": time.Now()}
	for k, v := range about {
		fields[k] = v
	}
	line, err := json.Marshal(fields)
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

// Check runs a command that judges a worker, until ctx ends; the error is how it ended. What it
// writes is not logged: it runs again and again.
func (r *Runner) Check(ctx context.Context, command string, about map[string]any) error {
	r.mu.Lock()
	cfg := r.cfg
	r.mu.Unlock()
	line, err := json.Marshal(about)
	if err != nil {
		return err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	if by, ok := ctx.Deadline(); ok {
		cfg.Timeout = time.Until(by)
	}
	return r.run(cfg, event{line: append(line, '\n')}, command)
}

// maxLine and maxLines limit the logged output of a hook.
const (
	maxLine  = 1 << 10 // bytes; what is longer becomes several lines
	maxLines = 100
)

// run runs one command. The error is how it ended.
func (r *Runner) run(cfg Config, e event, command string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir, cmd.Env = cfg.Dir, append(slices.Clone(cfg.Env), variables(e)...)
	cmd.Stdin = bytes.NewReader(e.line)
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	cmd.WaitDelay = time.Second // for processes that it leaves with its output
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		if _, derr := os.Stat(cfg.Dir); cfg.Dir != "" && derr != nil {
			err = derr // execve(2) does not report which
		}
		return err
	}
	said := make(chan string, 1)
	go func() { said <- r.logOutput(read, e.name) }() // ends with the pipe
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	select {
	case err = <-ended:
	case <-ctx.Done():
		killTree(pidfd, cmd.Process.Pid)
		<-ended
		err = fmt.Errorf("not done within %v, killed", cfg.Timeout.Round(time.Millisecond))
	}
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	read.SetReadDeadline(time.Now().Add(outputTimeout)) // what it has left behind may have the other end
	if last := <-said; err != nil && last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// outputTimeout is how long to wait for the end of a hook's output.
const outputTimeout = 200 * time.Millisecond

// killTree kills a process with its group, and what descends from it in groups of its own
// (setsid, dumb-init); none of these if it has been reaped, whose pid may be another's.
func killTree(pidfd, pid int) {
	left := linux.Descendants(pid, nil)
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
	err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, group)
	if err == unix.EINVAL {
		if err = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err == nil {
			unix.Kill(-pid, unix.SIGKILL)
		}
	}
	for _, p := range left {
		if err == nil {
			p.Signal(unix.SIGKILL)
		}
		p.Close()
	}
}

// logOutput logs what a hook writes, and returns its last line.
func (r *Runner) logOutput(in *os.File, hook string) (last string) {
	defer in.Close()
	lines := bufio.NewReaderSize(in, maxLine)
	for n := 0; ; {
		text, _, err := lines.ReadLine()
		if len(text) > 0 {
			last = strings.ToValidUTF8(string(text), "?")
			if n++; n <= maxLines && hook != "" {
				r.log.Info("Hook: "+last, "event", events.HookOutput, "hook", hook)
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
		if k = strings.ToUpper(strings.ReplaceAll(k, "-", "_")); !isName(k) {
			continue
		}
		switch v.(type) {
		case string, json.Number, bool:
			if text := fmt.Sprint(v); !strings.ContainsRune(text, 0) {
				env = append(env, "HANDOFF_"+k+"="+text)
			}
		}
	}
	slices.Sort(env)
	return env
}

// isName reports whether a key can be the end of a variable's name.
func isName(key string) bool {
	return key != "" && strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}
