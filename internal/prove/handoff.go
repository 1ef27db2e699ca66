package prove

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/linux"
	"handoff/internal/printable"
)

// Handoff is a program under a handoff of its own. Start starts it, and Stop ends it.
type Handoff struct {
	Binary  string
	Args    []string // of the binary
	Env     []string
	Name    string // of the service, as in Args
	Output  string // file for the output of handoff and the program
	Address string // where it answers; "": the first address that it listens on
	// Break makes the next reload start a broken program; Repair restores the right one.
	Break, Repair func() error
	// Without has the actions that are not possible with this configuration, and why.
	Without map[Action]string
	// DrainTimeout limits how long old workers may take to exit.
	DrainTimeout time.Duration

	cmd    *exec.Cmd
	client *admin.Client
	addr   string
	ended  chan struct{}

	mu     sync.Mutex // guards inside: the clients of the load read it
	inside map[string]bool
}

// Start starts it and waits until every slot serves. The calling thread must live as long
// as handoff, which the kernel ends with it.
func (h *Handoff) Start(ctx context.Context) error {
	out, err := os.Create(h.Output)
	if err != nil {
		return err
	}
	defer out.Close()
	h.cmd = exec.Command(h.Binary, h.Args...)
	h.cmd.Env, h.cmd.Stdout, h.cmd.Stderr = h.Env, out, out
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	h.ended = make(chan struct{})
	go func() { // ends with handoff
		h.cmd.Wait()
		close(h.ended)
	}()
	if h.client, err = admin.Find(h.Name); err != nil {
		return err
	}
	s, err := h.await(ctx, func(s api.Status) bool { return s.State == api.StateServing })
	if err != nil {
		if why := h.whyNotServing(); strings.TrimSpace(why) != "" {
			return fmt.Errorf("the program did not become ready: %s", why)
		}
		return fmt.Errorf("the program did not become ready: %w", err)
	}
	if h.addr = h.Address; h.addr == "" {
		if h.addr = reach(s.Addresses); h.addr == "" {
			return errors.New("the program serves, but handoff holds no TCP address of it; set --address HOST:PORT")
		}
	}
	return Answers(ctx, h.addr)
}

// reach returns the first TCP address in the form in which a local client can connect to
// it.
func reach(addrs []api.AddressStatus) string {
	for _, a := range addrs {
		host, port, err := net.SplitHostPort(a.Address)
		if err != nil {
			continue
		}
		switch ip := net.ParseIP(host); {
		case host == "", host == "*", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
			host = "127.0.0.1"
		case ip != nil && ip.IsUnspecified():
			host = "::1"
		case ip == nil:
			continue
		}
		return net.JoinHostPort(host, port)
	}
	return ""
}

// Stop ends handoff and its workers with a drain, and kills them if that takes too long.
func (h *Handoff) Stop() {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	for _, timeout := range []time.Duration{8 * time.Second, 5 * time.Second} {
		h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-h.ended:
			return
		case <-time.After(timeout):
		}
	}
	// A master replaces a killed keeper, and workers outlive both.
	groups := map[int]bool{}
	if s, err := h.Status(); err == nil {
		for _, w := range s.Workers {
			groups[w.PID] = true
		}
	}
	if pid := h.master(); pid != 0 {
		kill(pid)
	}
	h.cmd.Process.Kill()
	<-h.ended
	for p := range linux.Processes() {
		if groups[p.Group] {
			kill(p.PID)
		}
	}
}

func kill(pid int) error {
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Signal(unix.SIGKILL)
}

// Status returns handoff's status.
func (h *Handoff) Status() (api.Status, error) { return h.client.Status() }

// Addr is the address at which the program answers.
func (h *Handoff) Addr() string { return h.addr }

// whyNotServing returns why the first generation did not become ready, and its last
// lines of output.
func (h *Handoff) whyNotServing() (why string) {
	var last []string
	f, err := os.Open(h.Output)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Level, Msg, Reason, Stderr string }
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			if last = append(last, "  "+printable.Text(lines.Text())); len(last) > maxLast {
				last = last[1:]
			}
			continue
		}
		if e.Level != "WARN" && e.Level != "ERROR" {
			continue
		}
		if why = e.Msg; e.Reason != "" {
			why = e.Reason
		}
	}
	return strings.Join(append([]string{printable.Text(why)}, last...), "\n")
}

// maxLast is how many lines of output are shown of a program that does not become ready.
const maxLast = 8

// gone returns an error if handoff has exited.
func (h *Handoff) gone() error {
	select {
	case <-h.ended:
		return errors.New("handoff has exited")
	default:
		return nil
	}
}

const look = 10 * time.Millisecond

// await polls the status until ok accepts it. Between two masters there is no response.
func (h *Handoff) await(ctx context.Context, ok func(api.Status) bool) (s api.Status, err error) {
	for {
		if s, err = h.Status(); err == nil && ok(s) {
			return s, nil
		}
		if err := h.gone(); err != nil {
			return s, err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("timed out: state %s, %d of %d slots ready, generation %d of %d", s.State, s.Ready, s.Slots, s.Generation, s.Wanted)
			}
			return s, err
		}
	}
}

// actionTimeout limits the time of one action.
const actionTimeout = 2 * time.Minute

// Do does one action.
func (h *Handoff) Do(ctx context.Context, d Action) (out Outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if why := h.Without[d]; why != "" {
		return out, fmt.Errorf("%w: %s", ErrCannot, why)
	}
	switch d {
	case Reload:
		s, err := h.reload(ctx)
		if err != nil {
			return out, err
		}
		if s.Reload.Outcome != api.OutcomeServed {
			return out, fmt.Errorf("generation %d failed: %s", s.Reload.Generation, s.Reload.Reason)
		}
		out.Stale, out.Generation = h.stale(s), s.Generation
	case Scale:
		out.Note, err = h.scale(ctx)
	case Upgrade:
		err = h.client.Upgrade()
	case Broken:
		out.Note, err = h.broken(ctx)
	case KillWorker:
		out.Note, err = h.killWorker(ctx)
	case KillMaster:
		err = h.killMaster(ctx)
	default:
		err = ErrCannot
	}
	return out, err
}

func (h *Handoff) reload(ctx context.Context) (api.Status, error) {
	generation, err := h.client.Reload()
	if err != nil {
		return api.Status{}, err
	}
	return h.await(ctx, func(s api.Status) bool {
		return s.Reload != nil && s.Reload.Generation >= generation && s.Reload.Outcome != api.OutcomeRunning
	})
}

func (h *Handoff) scale(ctx context.Context) (note string, err error) {
	before, err := h.Status()
	if err != nil {
		return "", err
	}
	for _, by := range []string{"+1", "-1"} {
		workers, err := h.client.Scale(by)
		if err != nil {
			return "", err
		}
		if _, err := h.await(ctx, func(s api.Status) bool { return s.Slots == workers && s.Ready >= s.Slots }); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d → %d → %d workers", before.Slots, before.Slots+1, before.Slots), nil
}

// broken reloads to a program that does not start.
func (h *Handoff) broken(ctx context.Context) (note string, err error) {
	if h.Break == nil {
		return "", ErrCannot
	}
	if err := h.Break(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, h.Repair()) }()
	s, err := h.reload(ctx)
	switch {
	case err != nil:
		return "", err
	case s.Reload.Outcome == api.OutcomeServed:
		return "", errors.New("a program that exits at once was put into service")
	case s.Ready < s.Slots:
		return "", fmt.Errorf("after the failed deploy %d of %d slots serve", s.Ready, s.Slots)
	}
	return "rejected, as expected", nil
}

func (h *Handoff) killMaster(ctx context.Context) error {
	old := h.master()
	if old == 0 {
		return errors.New("no master is running")
	}
	if err := kill(old); err != nil {
		return err
	}
	_, err := h.await(ctx, func(s api.Status) bool {
		now := h.master()
		return now != 0 && now != old && s.State == api.StateServing
	})
	return err
}

// master returns the pid of the keeper's child that is a master; 0: none is running.
func (h *Handoff) master() int {
	for _, pid := range linux.Children(h.cmd.Process.Pid) {
		if args := linux.Arguments(pid); len(args) > 1 && args[1] == "__master" {
			return pid
		}
	}
	return 0
}

// Settle waits until no old worker is left.
func (h *Handoff) Settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.DrainTimeout)
	defer cancel()
	s, err := h.await(ctx, func(s api.Status) bool {
		for _, w := range s.Workers {
			if w.Phase != api.PhaseServing {
				return false
			}
		}
		return s.State == api.StateServing
	})
	h.mu.Lock()
	h.inside = nil
	h.mu.Unlock()
	if err != nil && h.gone() == nil {
		old := 0
		for _, w := range s.Workers {
			if w.Phase != api.PhaseServing {
				old++
			}
		}
		return fmt.Errorf("after %v the state is %s, and %d workers are still starting or draining", h.DrainTimeout, s.State, old)
	}
	return err
}
