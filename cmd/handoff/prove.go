package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"handoff/internal/config"
	"handoff/internal/prove"
)

// proof has the options of `handoff prove`.
type proof struct {
	duration, timeout, wait, pause           time.Duration
	rate                                     float64
	clients                                  int
	reloads, killMaster, killWorker, upgrade int
	scale                                    int
	keep                                     string // --keep-connections, where it has a part in drains
	broken, tcp, asJSON, allowInside         bool
	request, address, output                 string
	against, againstReload                   string
	set                                      map[string]bool // flags on the command line
}

func proveCommand() *cobra.Command {
	p := newProof()
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
			runtime.LockOSThread() // the processes that it starts end with this thread
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			p.note(c.Flags())
			return p.run(ctx, c, cfg, args)
		},
	}
	p.flags(c)
	fs := c.Flags()
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

// newProof has the defaults of the flags that have none below.
func newProof() *proof {
	return &proof{duration: 5 * time.Second, timeout: 5 * time.Second, wait: time.Minute, pause: 2 * time.Second}
}

// flags adds its own, besides those of run.
func (p *proof) flags(c *cobra.Command) {
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
}

// note remembers which flags are set on the command line.
func (p *proof) note(flags *pflag.FlagSet) {
	p.set = map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { p.set[f.Name] = true })
}

// run runs the proof and prints the report.
func (p *proof) run(ctx context.Context, c *cobra.Command, cfg *config.Run, args []string) error {
	plan, err := p.plan(len(args))
	if err != nil {
		return err
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
	if ctx.Err() != nil {
		return failed{errors.New("interrupted; nothing proven")}
	}
	if err != nil {
		return failed{err}
	}
	if plan.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	report.AllowInside = p.allowInside
	report.Keep = p.keep
	if err := p.show(report, subject, what); err != nil || !report.Proven() {
		return failed{err}
	}
	return nil
}

// show prints the report.
func (p *proof) show(report *prove.Report, subject startable, what string) error {
	workers, addresses := 0, 1
	if h, ok := subject.(*prove.Handoff); ok {
		if s, err := h.Status(); err == nil {
			workers, addresses = s.Slots, len(s.Addresses)
		}
	}
	if p.asJSON {
		all := report.JSON()
		all["command"], all["address"], all["workers"], all["clients"], all["rate"] = what, subject.Addr(), workers, p.clients, p.rate
		return printJSON(all)
	}
	fmt.Printf("%s at %s", what, subject.Addr())
	if workers > 0 {
		fmt.Printf(", %d workers", workers)
	}
	if addresses > 1 {
		fmt.Printf(" (1 of %d addresses; --address selects another)", addresses)
	}
	fmt.Printf("; %s", pace(p))
	if len(report.Wants) > 0 {
		fmt.Printf("; expected: %s", strings.Join(report.Wants[:min(3, len(report.Wants))], ", "))
	}
	fmt.Print("\n\n")
	return report.Write(os.Stdout)
}

// pace describes the load.
func pace(p *proof) string {
	if p.rate == 0 {
		return fmt.Sprintf("%d keep-alive clients and %d others, each as fast as possible", p.clients, p.clients)
	}
	return fmt.Sprintf("%g requests/s, half of them from %d keep-alive clients", p.rate, p.clients)
}

// progress prints one line on a terminal.
func progress(now prove.Progress) {
	actions := ""
	if now.Of > 0 {
		actions = fmt.Sprintf(" %d of %d", now.Done, now.Of)
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s%s · %d requests · %d lost", now.Part, actions, now.Requests, now.Failed)
}
