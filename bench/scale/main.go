// Command scale measures what handoff costs as a function of slots and addresses: the
// change of steering, a reload, memory, the rate of new connections.
//
//	go run ./bench/scale          # about ten minutes; writes docs/benchmarks
//	go run ./bench/scale -redraw  # tables and plots of what was measured before
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"handoff/handoff"
	"handoff/internal/load"
)

var (
	redraw = flag.Bool("redraw", false, "measure nothing; tables and plots of what was measured before")
	out    = flag.String("out", "docs/benchmarks", "folder for what comes of it")
)

// point is what was measured of so many slots and addresses.
type point struct {
	Slots, Addresses int
	SteerMS          float64 `json:",omitempty"` // all addresses to all slots
	Why              string  `json:",omitempty"` // it was not measured
	StartMS          float64
	ReloadMS         float64 // median of 5
	ByHandMS         float64 // as many processes, started by a shell, until the last listens
	ManagerKB        int     // PSS of keeper and master, idle
	ReloadedKB       int
	Rate             float64 // new connections a second, 32 clients
}

type whole struct {
	Date, Kernel, Commit string
	CPUs                 int
	Steering, Running    []point
}

var (
	slots     = []int{1, 8, 64, 256}
	addresses = []int{1, 16, 64}
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run() error {
	path := filepath.Join(*out, "scale.json")
	var all whole
	if *redraw {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &all); err != nil {
			return err
		}
		return report(all)
	}
	// As many descriptors as root may have.
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200_000, Max: 200_000})
	dir, err := os.MkdirTemp("", "handoff-scale")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"handoff": "./cmd/handoff", "server": "./bench/scale/server"} {
		cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, b)
		}
	}
	all = whole{Date: time.Now().UTC().Format(time.DateOnly), Kernel: said("uname", "-sr"), Commit: said("git", "describe", "--always", "--dirty"), CPUs: runtime.NumCPU()}
	for _, a := range addresses {
		for _, s := range append(slices.Clone(slots), 1024) {
			p, err := steering(s, a)
			if err != nil {
				p.Why = err.Error()
			}
			fmt.Fprintf(os.Stderr, "steering: %+v\n", p)
			all.Steering = append(all.Steering, p)
		}
	}
	for _, a := range addresses {
		for _, s := range slots {
			p, err := running(dir, s, a)
			if err != nil {
				p.Why = err.Error()
			}
			fmt.Fprintf(os.Stderr, "running: %+v\n", p)
			all.Running = append(all.Running, p)
		}
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return report(all)
}

func said(words ...string) string {
	b, _ := exec.Command(words[0], words[1:]...).Output()
	return strings.TrimSpace(string(b))
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// steering times the change of all addresses from one half of the sockets to the
// other, as a reload does it.
func steering(s, a int) (p point, err error) {
	p = point{Slots: s, Addresses: a}
	watch, err := handoff.NewWatch()
	if err != nil {
		return p, err
	}
	defer watch.Close()
	var groups []*handoff.Group
	var targets [][2][]*handoff.Socket
	for range a {
		g, err := watch.Listen(handoff.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			return p, err
		}
		groups = append(groups, g)
		var both [2][]*handoff.Socket
		for half := range both {
			for slot := range s {
				k, err := g.Take(slot)
				if err != nil {
					return p, err
				}
				both[half] = append(both[half], k)
			}
		}
		targets = append(targets, both)
	}
	var took []float64
	for round := range 21 {
		began := time.Now()
		for i, g := range groups {
			if err := g.Steer(targets[i][round%2]); err != nil {
				return p, err
			}
		}
		took = append(took, time.Since(began).Seconds()*1000)
	}
	p.SteerMS = median(took)
	return p, nil
}

// maxSockets bounds what is run: with 4096, a start takes a minute and a half.
const maxSockets = 1024

// running measures a handoff with as many workers of server.
func running(dir string, s, a int) (p point, err error) {
	p = point{Slots: s, Addresses: a}
	if s*a > maxSockets {
		return p, fmt.Errorf("left out: %d sockets", s*a)
	}
	server, env := filepath.Join(dir, "server"), append(os.Environ(), "ADDRESSES="+strconv.Itoa(a), "HANDOFF_RUNTIME_DIR="+filepath.Join(dir, "run"), "HANDOFF_STATE_DIR="+filepath.Join(dir, "state"))
	if a == 1 {
		if p.ByHandMS, err = byHand(server, env, s); err != nil {
			return p, err
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return p, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(dir, "handoff"), "run", "-n", strconv.Itoa(s), "--name", "scale", "--log", "json", "--ready-when", "ready", "--ready-timeout", "2m", "--keepalive-linger", "0", "--", server)
	cmd.Env, cmd.Stderr, cmd.Stdout = env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return p, err
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			cmd.Process.Signal(syscall.SIGTERM) // at once
			<-done
		}
	}()
	said := func(event string) int {
		b, _ := os.ReadFile(log.Name())
		return strings.Count(string(b), `"event":"`+event+`"`)
	}
	await := func(event string, n int) error {
		for late := time.Now().Add(2 * time.Minute); said(event) < n; time.Sleep(time.Millisecond) {
			if said("cluster.failed") > 0 || time.Now().After(late) {
				b, _ := os.ReadFile(log.Name())
				return fmt.Errorf("no %s: %s", event, b[max(0, len(b)-300):])
			}
		}
		return nil
	}
	if err := await("cluster.started", 1); err != nil {
		return p, err
	}
	p.StartMS = time.Since(began).Seconds() * 1000
	time.Sleep(2 * time.Second)
	p.ManagerKB = pss(cmd.Process.Pid)
	l := load.Start(load.Config{Addr: "127.77.0.1:7000", Clients: 32})
	time.Sleep(3 * time.Second)
	r := l.Stop()
	if r.Lost() > 0 {
		return p, fmt.Errorf("lost: %v", r)
	}
	p.Rate = float64(r.Requests) / r.Elapsed.Seconds()
	var took []float64
	for i := range 5 {
		began := time.Now()
		cmd.Process.Signal(syscall.SIGUSR2)
		if err := await("cluster.reloaded", i+1); err != nil {
			return p, err
		}
		took = append(took, time.Since(began).Seconds()*1000)
		if err := await("worker.shutdown", s*(i+1)); err != nil {
			return p, err
		}
	}
	p.ReloadMS = median(took)
	time.Sleep(2 * time.Second)
	p.ReloadedKB = pss(cmd.Process.Pid)
	return p, nil
}

// byHand starts as many processes, each at an address of its own, until all of them
// answer: what they need to boot.
func byHand(server string, env []string, n int) (ms float64, err error) {
	began := time.Now()
	var all []*exec.Cmd
	defer func() {
		for _, c := range all {
			c.Process.Kill()
			c.Wait()
		}
	}()
	host := func(i int) string { return fmt.Sprintf("127.77.%d.%d", 1+i/250, 1+i%250) }
	for i := range n {
		c := exec.Command(server)
		c.Env = append(slices.Clone(env), "HOST="+host(i))
		if err := c.Start(); err != nil {
			return 0, err
		}
		all = append(all, c)
	}
	for i := range n {
		for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			c, err := net.Dial("tcp", host(i)+":7000")
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(late) {
				return 0, err
			}
		}
	}
	return time.Since(began).Seconds() * 1000, nil
}

// pss is of a keeper and its master, in kB.
func pss(keeper int) (kB int) {
	pids := []int{keeper}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", keeper))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, w := range strings.Fields(string(b)) {
			line, _ := os.ReadFile("/proc/" + w + "/cmdline")
			if pid, err := strconv.Atoi(w); err == nil && strings.Contains(string(line), "\x00__master\x00") {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.Atoi(strings.Fields(rest)[0])
				kB += n
			}
		}
	}
	return kB
}

func report(all whole) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# How it scales\n\n<!-- Written by go run ./bench/scale; do not edit. Raw data: scale.json -->\n\nMeasured on %s by `go run ./bench/scale` at commit %s: %d CPUs, %s. The program is a small Go server under the bind contract.\n\n", all.Date, all.Commit, all.CPUs, all.Kernel)
	b.WriteString("## The change of steering\n\nThe whole switch of a reload: one setsockopt for each address. Milliseconds, median of 21.\n\n| slots |")
	for _, a := range addresses {
		fmt.Fprintf(&b, " %d addresses |", a)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(addresses)) + "\n")
	for _, s := range append(slices.Clone(slots), 1024) {
		fmt.Fprintf(&b, "| %d |", s)
		for _, a := range addresses {
			for _, p := range all.Steering {
				if p.Slots == s && p.Addresses == a {
					if p.Why != "" {
						why := p.Why
						if strings.HasSuffix(why, "too many open files") {
							why = "too many descriptors"
						}
						fmt.Fprintf(&b, " %s |", why)
					} else {
						fmt.Fprintf(&b, " %.2f |", p.SteerMS)
					}
				}
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n![Steering](scale-steer.svg)\n\n## Running\n\n| slots | addresses | start ms | reload ms | as many processes by hand, ms | keeper and master, MB PSS | after 5 reloads | new connections/s | |\n|---:|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, p := range all.Running {
		hand := ""
		if p.ByHandMS > 0 {
			hand = fmt.Sprintf("%.0f", p.ByHandMS)
		}
		why, _, _ := strings.Cut(p.Why, "\n")
		if why != "" {
			fmt.Fprintf(&b, "| %d | %d | | | | | | | %s |\n", p.Slots, p.Addresses, strings.ReplaceAll(why, "|", "/"))
			continue
		}
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.0f | %s | %.1f | %.1f | %.0f | |\n", p.Slots, p.Addresses, p.StartMS, p.ReloadMS, hand, float64(p.ManagerKB)/1024, float64(p.ReloadedKB)/1024, p.Rate)
	}
	b.WriteString("\n![A reload](scale-reload.svg)\n\n![Memory](scale-memory.svg)\n\n![Rate](scale-rate.svg)\n\n")
	text, err := os.ReadFile("bench/scale/why.md") // where the curves bend
	if err != nil {
		return err
	}
	b.Write(text)
	if err := os.WriteFile(filepath.Join(*out, "scale.md"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	for _, d := range []struct {
		file, title, y string
		list           []point
		of             func(point) float64
	}{
		{"scale-steer.svg", "Change of steering", "ms", all.Steering, func(p point) float64 { return p.SteerMS }},
		{"scale-reload.svg", "Reload", "ms", all.Running, func(p point) float64 { return p.ReloadMS }},
		{"scale-memory.svg", "Keeper and master, PSS", "MB", all.Running, func(p point) float64 { return float64(p.ManagerKB) / 1024 }},
		{"scale-rate.svg", "New connections a second", "", all.Running, func(p point) float64 { return p.Rate }},
	} {
		if err := draw(filepath.Join(*out, d.file), d.title, d.y, d.list, d.of); err != nil {
			return err
		}
	}
	return nil
}

// draw plots one line for each number of addresses, over slots.
func draw(path, title, unit string, list []point, of func(point) float64) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "slots", unit
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{}
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	var lines []any
	for _, a := range addresses {
		var xy plotter.XYs
		for _, x := range list {
			if x.Addresses == a && of(x) > 0 {
				xy = append(xy, plotter.XY{X: float64(x.Slots), Y: of(x)})
			}
		}
		if len(xy) > 0 {
			lines = append(lines, fmt.Sprintf("%d addresses", a), xy)
		}
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	return p.Save(7*vg.Inch, 4*vg.Inch, path)
}
