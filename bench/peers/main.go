// Command peers measures handoff and the tools that are used in its place, one after
// the other in alternated rounds on one machine: what is lost in reloads, a shrink, a
// broken deploy and a kill -9 of the manager; how long a reload takes; throughput, memory
// and idle CPU.
//
//	go run ./bench/peers                  # about 40 minutes; writes docs/benchmarks
//	go run ./bench/peers -quick -only PM2 # a look
//	go run ./bench/peers -redraw          # tables and plots of what was measured before
//
// It installs what is missing, from npm into a folder of its own, and from Debian.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/load"
	"handoff/internal/prove"
)

var (
	rounds  = flag.Int("rounds", 2, "rounds, alternated")
	reloads = flag.Int("reloads", 10, "reloads in a round")
	only    = flag.String("only", "", "only peers with this in their names")
	quick   = flag.Bool("quick", false, "one round with 3 reloads, written nowhere")
	redraw  = flag.Bool("redraw", false, "measure nothing; tables and plots of what was measured before")
	out     = flag.String("out", "docs/benchmarks", "folder for what comes of it")
)

func main() {
	flag.Parse()
	if *quick {
		*rounds, *reloads = 1, 3
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// measured is what one round with one peer has come to. Raw data: what is in it is
// what docs/benchmarks/peers.json has.
type measured struct {
	Peer, Version, Note string
	Command, Reload     []string
	Missing             string `json:",omitempty"`
	Round               int
	Date, Commit        string
	Error               string  `json:",omitempty"`
	RSS                 int     // kB, of the manager, idle
	RSSAfter            int     // after the reloads
	IdleCPU             float64 // µs a second, of the manager
	New, Kept           speed
	ReloadSeconds       []float64
	Parts               []part
}

type speed struct{ Rate, P50, P99 float64 } // of 32 clients; a second, ms

type part struct {
	Name                string
	Times               int
	Note, Error         string
	Requests, Lost      [2]int64 // on new connections, on kept ones
	Failed              [2]map[load.Class]int64
	P99, Worst, Elapsed float64 // ms, ms, s
}

// whole is the file.
type whole struct {
	Date, Machine, Kernel, Node, Commit string
	CPUs, Reloads                       int
	Measured                            []measured
}

func run() error {
	if *redraw {
		b, err := os.ReadFile(filepath.Join(*out, "peers.json"))
		if err != nil {
			return err
		}
		var all whole
		if err := json.Unmarshal(b, &all); err != nil {
			return err
		}
		return report(all, *out)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "handoff-peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "handoff")
	build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-ldflags", "-s -w -X main.version="+said("git", "describe", "--tags", "--always"), "-o", bin, "./cmd/handoff")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build handoff: %w\n%s", err, b)
	}
	if err := install(dir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	all := whole{Date: time.Now().UTC().Format(time.DateOnly), Machine: model(), Kernel: said("uname", "-sr"), Node: said("node", "--version"),
		Commit: said("git", "describe", "--always", "--dirty"), CPUs: runtime.NumCPU(), Reloads: *reloads}
	for round := range *rounds {
		for _, p := range peers(dir, bin, port) {
			if !strings.Contains(p.Name, *only) {
				continue
			}
			if ctx.Err() != nil {
				return errors.New("interrupted; nothing is written")
			}
			m := measured{Peer: p.Name, Version: firstLine(p.Version), Note: p.Note, Command: p.Command, Reload: p.Reload, Round: round + 1, Missing: p.Missing, Date: all.Date, Commit: all.Commit}
			if p.Missing == "" {
				fmt.Fprintf(os.Stderr, "%s round %d: %s\n", time.Now().Format(time.TimeOnly), round+1, p.Name)
				t := &tool{peer: p, dir: dir, addr: addr}
				if err := t.measure(ctx, &m); err != nil {
					m.Error = err.Error()
					fmt.Fprintf(os.Stderr, "  %v\n", err)
				}
				t.stop()
				for _, x := range m.Parts {
					fmt.Fprintf(os.Stderr, "  %-24s %2d times, lost %d of %d and %d of %d; %s %s\n", x.Name, x.Times, x.Lost[0], x.Requests[0], x.Lost[1], x.Requests[1], x.Note, x.Error)
				}
				fmt.Fprintf(os.Stderr, "  new %.0f/s, kept %.0f/s, RSS %d kB, idle %.0f µs/s, reloads %.2f s\n", m.New.Rate, m.Kept.Rate, m.RSS, m.IdleCPU, m.ReloadSeconds)
			}
			all.Measured = append(all.Measured, m)
		}
	}
	if *quick {
		return nil
	}
	if *only != "" { // in the place of what was measured of these before
		var before whole
		if b, err := os.ReadFile(filepath.Join(*out, "peers.json")); err == nil && json.Unmarshal(b, &before) == nil {
			fresh := all.Measured
			all = before
			all.Measured = slices.DeleteFunc(all.Measured, func(m measured) bool { return strings.Contains(m.Peer, *only) })
			all.Measured = append(all.Measured, fresh...)
		}
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	b = []byte(strings.ReplaceAll(string(b), dir, "/tmp/peers"))
	if err := os.WriteFile(filepath.Join(*out, "peers.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	all = whole{} // as it stands there
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	return report(all, *out)
}

func (t *tool) measure(ctx context.Context, m *measured) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	cpu := func() (us float64) {
		for _, pid := range t.managers() {
			us += cpuOf(pid)
		}
		return us
	}
	rss := func() (kB int) {
		for _, pid := range t.managers() {
			kB += rssOf(pid)
		}
		return kB
	}
	span := 5 * time.Second
	before := cpu()
	time.Sleep(span)
	m.IdleCPU, m.RSS = (cpu()-before)/span.Seconds(), rss()
	for mode, s := range map[load.Mode]*speed{load.New: &m.New, load.KeepAlive: &m.Kept} {
		l := load.Start(load.Config{Addr: t.addr, Mode: mode, Clients: 32})
		time.Sleep(3 * time.Second)
		r := l.Stop()
		*s = speed{float64(r.Requests-r.Lost()) / r.Elapsed.Seconds(), r.Quantile(50), r.Quantile(99)}
	}
	r, err := prove.Run(ctx, t, prove.Plan{Duration: 3 * time.Second, Rate: 1000, Clients: 16, Timeout: 5 * time.Second,
		Times: map[prove.Action]int{prove.Reload: *reloads, prove.Scale: 1}})
	if err != nil {
		return err
	}
	m.RSSAfter = rss()
	m.add(r)
	// Each by itself: what was lost in one is not for the next.
	for _, d := range []prove.Action{prove.Broken, prove.KillMaster} {
		if m.Round > 1 {
			break // they come out the same
		}
		t.stop()
		if err := t.start(ctx); err != nil {
			return err
		}
		r, err := prove.Run(ctx, t, prove.Plan{Duration: time.Second, Rate: 1000, Clients: 16, Timeout: 5 * time.Second, Times: map[prove.Action]int{d: 1}})
		if err != nil {
			return err
		}
		r.Parts = r.Parts[1:]
		m.add(r)
	}
	for _, d := range t.took {
		m.ReloadSeconds = append(m.ReloadSeconds, d.Seconds())
	}
	return nil
}

func (m *measured) add(r *prove.Report) {
	for i := range r.Parts {
		p := &r.Parts[i]
		x := part{Name: p.Name, Times: p.Times, Note: p.Note, Error: p.Error, Elapsed: p.Elapsed.Seconds(),
			Requests: [2]int64{p.New.Requests, p.Kept.Requests}, Lost: [2]int64{p.New.Lost(), p.Kept.Lost()}, Failed: [2]map[load.Class]int64{p.New.Failed, p.Kept.Failed}}
		x.P99, x.Worst = p.Latency()
		m.Parts = append(m.Parts, x)
	}
}

func cpuOf(pid int) (us float64) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		var ns float64
		fmt.Sscan(string(b), &ns)
		us += ns / 1000
	}
	return us
}

func rssOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Rss:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// said is the first line of what a command prints.
func said(words ...string) string { return firstLine(words) }

func firstLine(words []string) string {
	if len(words) == 0 {
		return ""
	}
	b, _ := exec.Command(words[0], words[1:]...).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[0])
}

func model() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), ":"))
		}
	}
	return "unknown"
}
