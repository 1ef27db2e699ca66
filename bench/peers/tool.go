package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/linux"
	"handoff/internal/prove"
)

// mark is in the environment of everything that a run starts.
const mark = "HANDOFF_PEERS_RUN"

// tool is a peer that runs.
type tool struct {
	peer
	dir, addr string
	cmd       *exec.Cmd
	ended     chan struct{}
	groups    map[int]bool // of processes that are its own; some overwrite their environment
	// Took is how long reloads took until only new processes answered.
	took []time.Duration
}

func (t *tool) work() string { return filepath.Join(t.dir, "work") }

func (t *tool) write(files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(t.work(), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// deploy puts the right program there.
func (t *tool) deploy() error {
	if t.App != "" {
		b, err := os.ReadFile(filepath.Join("bench/peers/testdata", t.App))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(t.work(), t.App), b, 0o644); err != nil {
			return err
		}
	}
	return t.write(t.Files)
}

func (t *tool) environ() []string {
	_, port, _ := net.SplitHostPort(t.addr)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "NODE_OPTIONS=") })
	return append(append(env, "PORT="+port, mark+"="+t.dir, "HANDOFF_RUNTIME_DIR="+filepath.Join(t.dir, "run"), "HANDOFF_STATE_DIR="+filepath.Join(t.dir, "state")), t.Env...)
}

func (t *tool) start(ctx context.Context) error {
	if err := os.RemoveAll(t.work()); err != nil {
		return err
	}
	if err := os.MkdirAll(t.work(), 0o755); err != nil {
		return err
	}
	if err := t.deploy(); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(t.dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	if c, err := net.Dial("tcp", t.addr); err == nil {
		c.Close()
		return fmt.Errorf("somebody listens on %s already", t.addr)
	}
	t.cmd = exec.Command(t.Command[0], t.Command[1:]...)
	t.cmd.Dir, t.cmd.Env, t.cmd.Stdout, t.cmd.Stderr = t.work(), t.environ(), out, out
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := t.cmd.Start(); err != nil {
		return err
	}
	t.ended = make(chan struct{})
	go func() { // ends with the tool
		t.cmd.Wait()
		close(t.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := prove.Answers(ctx, t.addr); err != nil {
		b, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%w\n%s", err, b)
	}
	time.Sleep(2 * time.Second) // until all workers are there
	t.groups = map[int]bool{t.cmd.Process.Pid: true, t.manager(): true}
	return nil
}

// manager is the pid that is signalled.
func (t *tool) manager() int {
	if t.Daemon == "" {
		return t.cmd.Process.Pid
	}
	b, _ := os.ReadFile(t.Daemon)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// managers are the processes that serve nothing: of handoff master and keeper.
func (t *tool) managers() []int {
	first := t.manager()
	for _, pid := range linux.Children(first) {
		if slices.Contains(linux.Arguments(pid), "__master") {
			return []int{pid, first}
		}
	}
	return []int{first}
}

// stop ends the tool, and whatever it has left, each by its own pid.
func (t *tool) stop() {
	if t.cmd == nil || t.cmd.Process == nil {
		return
	}
	if len(t.End) > 0 {
		t.command(context.Background(), t.End)
	}
	t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.ended:
	case <-time.After(10 * time.Second):
	}
	for range 50 {
		left := t.left()
		for _, pid := range left {
			kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	<-t.ended
}

// left are the processes of this run.
func (t *tool) left() (pids []int) {
	for p := range linux.Processes() {
		if p.PID != os.Getpid() && (t.groups[p.Group] || linux.Lookup(linux.Environ(p.PID), mark) == t.dir) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

func kill(pid int, s syscall.Signal) error {
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Signal(s)
}

var signals = map[string]syscall.Signal{"SIGHUP": syscall.SIGHUP, "SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2, "SIGTTIN": syscall.SIGTTIN, "SIGTTOU": syscall.SIGTTOU}

// command runs a command, or sends signals.
func (t *tool) command(ctx context.Context, words []string) (string, error) {
	if _, ok := signals[words[0]]; ok {
		for i, w := range words {
			if i > 0 {
				time.Sleep(300 * time.Millisecond) // two at once would be one
			}
			if err := kill(t.manager(), signals[w]); err != nil {
				return "", fmt.Errorf("%s: %w", w, err)
			}
		}
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir, cmd.Env = t.work(), append(t.environ(), "PID="+strconv.Itoa(t.manager()))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Addr is where it answers.
func (t *tool) Addr() string { return t.addr }

// Inside is not known.
func (t *tool) Inside(string) bool { return false }

// Settle gives old processes a moment.
func (t *tool) Settle(context.Context) error {
	time.Sleep(2 * time.Second)
	return nil
}

// who asks which process answers, on a connection of its own; 0: none does.
func (t *tool) who() int {
	c, err := net.DialTimeout("tcp", t.addr, time.Second)
	if err != nil {
		return 0
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	b, _ := io.ReadAll(c)
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	for _, w := range strings.Fields(body) { // chunked, perhaps
		if pid, err := strconv.Atoi(w); err == nil && pid > 300 {
			return pid
		}
	}
	return 0
}

const (
	inARow   = 40
	tooLong  = 30 * time.Second
	afterOne = time.Second
)

// only waits until so many answers in a row come from other processes than old ones.
func (t *tool) only(old map[int]bool) bool {
	row := 0
	for late := time.Now().Add(tooLong); row < inARow && time.Now().Before(late); {
		if pid := t.who(); pid == 0 || old[pid] {
			row = 0
			time.Sleep(5 * time.Millisecond)
			continue
		}
		row++
	}
	return row >= inARow
}

// Do does what it has.
func (t *tool) Do(ctx context.Context, d prove.Action) (out prove.Outcome, err error) {
	switch d {
	case prove.Reload:
		old := map[int]bool{}
		for _, pid := range t.left() {
			old[pid] = true
		}
		began := time.Now()
		words, err := t.command(ctx, t.Reload)
		if err != nil {
			return out, fmt.Errorf("%w: %s", err, words)
		}
		if !t.only(old) {
			return out, fmt.Errorf("old processes answer %v after it was asked to reload", tooLong)
		}
		t.took = append(t.took, time.Since(began))
		time.Sleep(cmp.Or(t.Rest, afterOne))
	case prove.Scale:
		if len(t.Shrink) == 0 {
			return out, prove.ErrCannot
		}
		for _, words := range [][]string{t.Shrink, t.Grow} {
			if words, err := t.command(ctx, words); err != nil {
				return out, fmt.Errorf("%w: %s", err, words)
			}
			time.Sleep(2 * time.Second)
		}
		out.Note = "4 → 2 → 4 workers"
	case prove.Broken:
		return t.breakIt(ctx)
	case prove.KillMaster:
		for _, pid := range t.managers() { // of handoff the master, and then the keeper
			if err := kill(pid, syscall.SIGKILL); err != nil {
				return out, err
			}
			time.Sleep(3 * time.Second)
		}
		if out.Note = "serves on"; t.who() == 0 {
			out.Note = "does not serve any more"
		}
	default:
		return out, prove.ErrCannot
	}
	return out, nil
}

// breakIt deploys what does not start, says what the tool says of it, and puts the
// right one there again.
func (t *tool) breakIt(ctx context.Context) (out prove.Outcome, err error) {
	files := t.broken
	if t.App != "" {
		files = map[string]string{t.App: t.Broken}
	}
	if err := t.write(files); err != nil {
		return out, err
	}
	words, err := t.command(ctx, t.Reload)
	out.Note = "says nothing"
	if _, signal := signals[t.Reload[0]]; !signal {
		out.Note = "exit code 0"
		if err != nil {
			out.Note = err.Error()
		}
	}
	_ = words
	time.Sleep(4 * time.Second)
	serves := t.who() != 0
	if err := t.deploy(); err != nil {
		return out, err
	}
	if serves {
		out.Note += "; serves on"
		return out, nil
	}
	out.Note += "; does not serve any more"
	t.command(ctx, t.Reload)
	time.Sleep(3 * time.Second)
	if t.who() == 0 {
		out.Note += ", nor with the right program again: it has to be started anew"
		t.stop()
		return out, t.start(ctx)
	}
	return out, nil
}
