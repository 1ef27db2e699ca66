package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"handoff/internal/config"
	"handoff/internal/load"
	"handoff/internal/prove"
)

// proof is what `handoff prove` was asked for.
type proof struct {
	duration, timeout, wait, pause           time.Duration
	rate                                     float64
	clients                                  int
	reloads, killMaster, killWorker, upgrade int
	scale                                    int
	broken, tcp, asJSON, allowInside         bool
	request, address, output                 string
	against, againstReload                   string
	given                                    map[string]bool // flags of the command line
}

func proveCommand() *cobra.Command {
	p := proof{duration: 5 * time.Second, timeout: 5 * time.Second, wait: time.Minute, pause: 2 * time.Second}
	cfg := config.NewRun()
	c := &cobra.Command{
		Use:   "prove [flags] [--] COMMAND [ARG...] | prove [flags] APP.js [ARG...] | prove [flags] [DIR]",
		Short: "Measure what a program loses under reloads and failures",
		Long: `Run a program under a handoff of its own, put strict load on it, disturb it, and count: every request that is
refused, reset, closed, late, or answered wrongly or by an old generation is lost. Nothing is retried. Half of
the requests use new connections, half kept ones.

The program is given as to handoff run, whose options and configuration files apply here, too, except those that
would touch what is already running (--pid-file, --name, --admin, --log-file, --hook, --watch, --capture). PORT is
a free one unless it is set. The status of the first answer to each request is expected from then on. A program
that reports its generation in a header X-Generation is checked for that as well.

Disturbances, one at a time, in this order: reloads, scaling up and down by one worker, an upgrade of handoff, a
deploy of a program that does not start, kill -9 of workers, kill -9 of the master. 0 skips one.

--against puts the same load on another tool, which is started by a shell command, and reloaded by another one,
with $PID. It is not scaled or upgraded; --kill-master 1 kills it, at the end.

The requests are real: with --request FILE, mind what a POST does.

Exit code: 0 nothing was lost; 1 something was lost, or nothing could be proven; 2 usage.`,
		Example: `  handoff prove server.js
  handoff prove -n 4 --reloads 50 --duration 20s -- gunicorn app:app
  handoff prove -c /srv/web/handoff.toml --request requests.http --rate 200
  handoff prove --tcp -- ./echo
  handoff prove --against 'pm2-runtime -i 2 server.js' --against-reload 'pm2 reload all' --address 127.0.0.1:3000`,
		RunE: func(c *cobra.Command, args []string) error {
			runtime.LockOSThread() // what it starts ends with this thread
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			p.given = map[string]bool{}
			c.Flags().Visit(func(f *pflag.Flag) { p.given[f.Name] = true })
			return p.run(ctx, c, cfg, args)
		},
	}
	fs := c.Flags()
	durationFlag(c, &p.duration, "duration", "`time` without disturbance; each disturbance takes at least this long (default 5s)")
	fs.Float64Var(&p.rate, "rate", 1000, "`requests` a second, half of them on new connections; 0: as fast as possible")
	fs.IntVar(&p.clients, "clients", 16, "`clients` that keep their connections")
	durationFlag(c, &p.timeout, "timeout", "a request without an answer after this time is lost (default 5s)")
	fs.StringVar(&p.request, "request", "", "`file` of requests to send in turn, in the .http format of editors: METHOD TARGET, headers, an empty line, a body; separated by ###")
	fs.BoolVar(&p.tcp, "tcp", false, "send lines and expect each to be echoed, instead of HTTP")
	fs.StringVar(&p.address, "address", "", "`HOST:PORT` where it answers (default: the first address that handoff holds)")
	fs.IntVar(&p.reloads, "reloads", 10, "number of `reloads`")
	fs.IntVar(&p.scale, "scale", 1, "scale up and down by one worker, this many `times`")
	fs.IntVar(&p.upgrade, "upgrade", 1, "upgrade handoff itself, this many `times`")
	fs.BoolVar(&p.broken, "broken-deploy", true, "deploy a program that does not start; the deploy must be refused")
	fs.IntVar(&p.killWorker, "kill-worker", 0, "kill -9 a worker, this many `times`; the requests inside are lost with it")
	fs.IntVar(&p.killMaster, "kill-master", 3, "kill -9 the master, this many `times`")
	fs.BoolVar(&p.allowInside, "allow-inside", false, "do not count requests that were inside a killed worker")
	fs.StringVar(&p.against, "against", "", "prove another tool: the `command` that runs the program in the foreground (needs --address)")
	fs.StringVar(&p.againstReload, "against-reload", "", "the `command` that reloads it: 'kill -HUP $PID'")
	durationFlag(c, &p.pause, "against-pause", "wait this long after a reload of the other tool, which does not report when it is done (default 2s)")
	durationFlag(c, &p.wait, "wait", "longest wait for the program to serve at first (default 1m)")
	fs.StringVar(&p.output, "output", "", "`file` for the output of handoff and the program")
	jsonFlag(c, &p.asJSON)
	own := map[string]bool{"help": true}
	fs.VisitAll(func(f *pflag.Flag) { own[f.Name] = true })
	cfg.Flags(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if !own[f.Name] && f.Name != "config" && f.Name != "workers" {
			f.Hidden = true
		}
	})
	fs.SortFlags = false
	fs.SetInterspersed(false)
	return c
}

func (p *proof) run(ctx context.Context, c *cobra.Command, cfg *config.Run, args []string) error {
	plan := prove.Plan{Duration: p.duration, Rate: p.rate, Clients: p.clients, Timeout: p.timeout, Echo: p.tcp, Times: map[prove.Deed]int{
		prove.Reload: p.reloads, prove.Scale: p.scale, prove.Upgrade: p.upgrade, prove.KillWorker: p.killWorker, prove.KillMaster: p.killMaster}}
	if p.broken {
		plan.Times[prove.Broken] = 1
	}
	if p.rate == 0 {
		plan.Rate = -1
	}
	if p.against != "" {
		for flag, d := range map[string]prove.Deed{"scale": prove.Scale, "upgrade": prove.Upgrade, "broken-deploy": prove.Broken, "kill-worker": prove.KillWorker} {
			if p.given[flag] && plan.Times[d] > 0 {
				return fmt.Errorf("--%s is for handoff only, not for --against", flag)
			}
			plan.Times[d] = 0
		}
		if !p.given["kill-master"] {
			plan.Times[prove.KillMaster] = 0
		}
		if plan.Times[prove.KillMaster] > 1 {
			return errors.New("--kill-master: another tool is killed once; it stays dead")
		}
		if p.againstReload == "" {
			plan.Times[prove.Reload] = 0
		}
	}
	for name, n := range map[string]int{"reloads": p.reloads, "scale": p.scale, "upgrade": p.upgrade, "kill-worker": p.killWorker, "kill-master": p.killMaster} {
		if n < 0 {
			return fmt.Errorf("--%s must not be negative", name)
		}
	}
	switch {
	case p.rate < 0:
		return errors.New("--rate must not be negative")
	case p.clients < 1:
		return errors.New("--clients must be at least 1")
	case p.duration <= 0 || p.timeout <= 0 || p.wait <= 0:
		return errors.New("--duration, --timeout and --wait must be greater than 0")
	case p.tcp && p.request != "":
		return errors.New("--tcp and --request exclude each other")
	case p.against != "" && len(args) > 0:
		return errors.New("--against is the whole command line of the other tool; leave the program out")
	case p.against != "" && p.address == "":
		return errors.New("--against needs --address HOST:PORT, where the other tool serves")
	case p.against == "" && p.againstReload != "":
		return errors.New("--against-reload is for --against")
	}
	if p.address != "" {
		if _, _, err := net.SplitHostPort(p.address); err != nil {
			return fmt.Errorf("--address %s: want HOST:PORT", p.address)
		}
	}
	if p.request != "" {
		text, err := os.ReadFile(p.request)
		if err != nil {
			return failed{fmt.Errorf("--request: %w", err)}
		}
		if plan.Requests, err = load.ParseRequests(text); err != nil {
			return fmt.Errorf("--request %s: %w", p.request, err)
		}
	}
	dir, err := os.MkdirTemp("", "handoff-prove")
	if err != nil {
		return failed{err}
	}
	defer os.RemoveAll(dir)
	if p.output == "" {
		p.output = filepath.Join(dir, "output")
	}
	subject, what, err := p.subject(c.Flags(), cfg, args, dir)
	if err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stderr.Fd())) && !p.asJSON {
		plan.Progress = progress
		defer fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	defer subject.Stop()
	starting, cancel := context.WithTimeout(ctx, p.wait)
	err = subject.Start(starting)
	cancel()
	if err != nil {
		return failed{err}
	}
	report, err := prove.Run(ctx, subject, plan)
	if report != nil {
		report.Forgiven = p.allowInside
	}
	if ctx.Err() != nil {
		return failed{errors.New("interrupted; nothing is proven")}
	}
	if err != nil {
		return failed{err}
	}
	if plan.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	workers, addresses := 0, 1
	if h, ok := subject.(*prove.Handoff); ok {
		if s, err := h.Status(); err == nil {
			workers, addresses = s.Slots, len(s.Addresses)
		}
	}
	if p.asJSON {
		all := report.JSON()
		all["command"], all["address"], all["workers"], all["clients"], all["rate"] = what, subject.Addr(), workers, p.clients, p.rate
		err = printJSON(all)
	} else {
		fmt.Printf("%s at %s", what, subject.Addr())
		if workers > 0 {
			fmt.Printf(", %d workers", workers)
		}
		if addresses > 1 {
			fmt.Printf(" (of %d addresses only this one was tried; --address chooses another)", addresses)
		}
		fmt.Printf("; %s", pace(p))
		if len(report.Wants) > 0 {
			fmt.Printf("; wanted: %s", strings.Join(report.Wants[:min(3, len(report.Wants))], ", "))
		}
		fmt.Print("\n\n")
		err = report.Write(os.Stdout)
	}
	if err != nil || !report.Proven() {
		return failed{err}
	}
	return nil
}

// pace says how much load there is.
func pace(p *proof) string {
	if p.rate == 0 {
		return fmt.Sprintf("%d clients keep their connections, %d do not, each as fast as it is answered", p.clients, p.clients)
	}
	return fmt.Sprintf("%g requests/s, half of them by %d clients that keep their connections", p.rate, p.clients)
}

// startable is a subject that begins and ends.
type startable interface {
	prove.Subject
	Start(context.Context) error
	Stop()
}

// subject is what is to be proven. dir is its own.
func (p *proof) subject(flags *pflag.FlagSet, cfg *config.Run, args []string, dir string) (s startable, what string, err error) {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, "WATCHDOG_")
	})
	if p.against != "" {
		return &prove.Against{Command: p.against, Reload: p.againstReload, Env: env, Output: p.output, Address: p.address, Pause: p.pause}, p.against, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, "", failed{err}
	}
	if os.Getenv("PORT") == "" {
		port, err := freePort()
		if err != nil {
			return nil, "", failed{err}
		}
		env = append(env, "PORT="+port)
	}
	// What runs is in a file of its own, so that a reload can find something else there.
	flags.Set("private", "true")
	program, err := configure(flags, cfg, args, false)
	if err != nil {
		return nil, "", err
	}
	if len(program.Here) > 0 {
		here = string(program.Here)
	}
	command, keys := program.Said, map[string]any{}
	if err := toml.Unmarshal(program.Text, &keys); err != nil {
		return nil, "", failed{err}
	}
	if len(cfg.Env) > 0 { // what is given wins, and may be a secret: no command line shows it
		set := map[string]string{}
		for _, kv := range cfg.Env {
			k, v, _ := strings.Cut(kv, "=")
			set[k] = v
		}
		keys["env"] = set
	}
	path := filepath.Join(dir, config.FileName)
	write := func(command []string) func() error {
		return func() error {
			keys["command"] = command
			b, err := toml.Marshal(keys)
			if err != nil {
				return err
			}
			return os.WriteFile(path, b, 0o600)
		}
	}
	if err := write(command)(); err != nil {
		return nil, "", failed{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, "", failed{err}
	}
	// Where it has its socket. Also of this process, which asks.
	os.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(dir, "run"))
	env = append(env, "HANDOFF_RUNTIME_DIR="+filepath.Join(dir, "run"))
	without := map[prove.Deed]string{}
	if len(cfg.Ports) > 0 {
		without[prove.Scale] = "each slot has a port of its own"
	}
	if cfg.Death != "" {
		without[prove.Upgrade] = "with --pdeathsig workers end with their master"
		without[prove.KillMaster] = without[prove.Upgrade]
	}
	h := &prove.Handoff{Binary: binary, Env: env, Name: "prove-" + strconv.Itoa(os.Getpid()), Output: p.output, Address: p.address,
		Break: write(brokenProgram(cfg, command)), Mend: write(command), Without: without, Patience: cfg.DrainTimeout + cfg.KillGrace + cfg.DrainSpread + settle}
	h.Args = append([]string{"run", "--private", "--config", path, "--cwd", cfg.WorkdirPath(here), "--name", h.Name, "--log", "json"}, p.passedOn(flags)...)
	return h, strings.Join(command, " "), nil
}

// brokenProgram is one of the same kind that does not start.
func brokenProgram(cfg *config.Run, command []string) []string {
	const script = "throw new Error('this is the broken deploy of handoff prove')"
	line, _, err := config.CommandLine(command, "/")
	if err == nil && cfg.ContractOf(line) == "node" {
		return []string{line[0], "-e", script}
	}
	return []string{"sh", "-c", "echo 'this is the broken deploy of handoff prove' >&2; exit 1"}
}

// settle is how much longer than its timeouts old workers are waited for.
const settle = 5 * time.Second

// passedOn are the flags of `handoff run` that were given; what file and environment
// say, it reads there itself.
func (p *proof) passedOn(flags *pflag.FlagSet) (args []string) {
	run := pflag.NewFlagSet("run", pflag.ContinueOnError)
	config.NewRun().Flags(run)
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "cwd", "env", "name", "log", "private", "only", "pm2-env", "rack-version", "timeout":
			return
		}
		if run.Lookup(f.Name) == nil || !p.given[f.Name] {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

// freePort is a port that nobody has just now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// progress shows how far it is on one line of a terminal.
func progress(now prove.Progress) {
	deeds := ""
	if now.Of > 0 {
		deeds = fmt.Sprintf(" %d of %d", now.Done, now.Of)
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s%s · %d requests · %d lost", now.Part, deeds, now.Requests, now.Failed)
}
