// Command bench measures handoff beside Node's own cluster module and a plain
// node process, in alternated rounds on one machine, and prints tables.
//
//	go run ./bench            # about four minutes
//	go run ./bench -quick     # one short round
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/load"
)

var (
	workers  = flag.Int("n", runtime.NumCPU(), "workers")
	rounds   = flag.Int("rounds", 3, "rounds, alternated")
	duration = flag.Duration("duration", 4*time.Second, "of one load")
	clients  = flag.Int("clients", 32, "clients at once")
	quick    = flag.Bool("quick", false, "one round of one second")
	only     = flag.String("only", "", "one part: throughput, idle, reloads, cost or dropins")
	against  = flag.String("against", "", "another `BINARY` of handoff, beside this one in the part cost")
)

// target is a way to run the application.
type target struct {
	name string
	args []string // before the application
	app  []string // empty: a server of node's
	env  []string
}

func main() {
	flag.Parse()
	if *quick {
		*rounds, *duration = 1, time.Second
	}
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench() error {
	dir, err := os.MkdirTemp("", "handoff-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "handoff")
	build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./cmd/handoff")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build handoff: %w\n%s", err, out)
	}
	n := strconv.Itoa(*workers)
	under := func(balance string) []string {
		return []string{bin, "run", "-n", n, "--balance", balance, "--log", "json", "--"}
	}
	targets := []target{
		{name: "plain node", env: nil},
		{name: "handoff even", args: under("even")},
		{name: "handoff shared", args: under("shared")},
		{name: "node cluster, round robin", env: []string{"BENCH_N=" + n, "BENCH_POLICY=rr"}},
		{name: "node cluster, SCHED_NONE", env: []string{"BENCH_N=" + n, "BENCH_POLICY=none"}},
	}
	out, _ := exec.Command("node", "--version").Output()
	fmt.Printf("%d CPUs, node %s, %d workers, %d clients, %v a load, %d rounds; medians\n\n",
		runtime.NumCPU(), strings.TrimSpace(string(out)), *workers, *clients, *duration, *rounds)
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"throughput", func() error { return throughput(targets) }},
		{"idle", func() error { return idle(targets) }},
		{"reloads", func() error { return reloads(targets) }},
		{"cost", func() error { return cost(dir, bin) }},
		{"dropins", func() error { return dropins(dir, bin) }},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		if err := part.run(); err != nil {
			return err
		}
	}
	return nil
}

// figures of one load on one target.
type figures struct {
	rate, p50, p99 float64
	managerCPU     float64 // µs for a request
	workerCPU      float64
	lost           int64
}

func throughput(targets []target) error {
	for _, mode := range []load.Mode{load.New, load.KeepAlive} {
		got := make([][]figures, len(targets))
		for range *rounds {
			for i, t := range targets {
				f, err := measure(t, mode)
				if err != nil {
					return err
				}
				got[i] = append(got[i], f)
			}
		}
		title := map[load.Mode]string{load.New: "a connection for each request", load.KeepAlive: "keep-alive"}[mode]
		fmt.Printf("%-32s %9s %8s %8s %14s %14s %6s\n", title, "req/s", "p50 ms", "p99 ms", "manager µs/req", "workers µs/req", "lost")
		for i, t := range targets {
			m := func(f func(figures) float64) float64 { return median(got[i], f) }
			fmt.Printf("%-32s %9.0f %8.2f %8.2f %14.1f %14.1f %6.0f\n", t.name,
				m(func(f figures) float64 { return f.rate }), m(func(f figures) float64 { return f.p50 }),
				m(func(f figures) float64 { return f.p99 }), m(func(f figures) float64 { return f.managerCPU }),
				m(func(f figures) float64 { return f.workerCPU }), m(func(f figures) float64 { return float64(f.lost) }))
		}
		fmt.Println()
	}
	return nil
}

func median(fs []figures, f func(figures) float64) float64 {
	var v []float64
	for _, x := range fs {
		v = append(v, f(x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func measure(t target, mode load.Mode) (figures, error) {
	p, err := run(t)
	if err != nil {
		return figures{}, err
	}
	defer p.stop()
	warm := load.Start(load.Config{Addr: p.addr, Mode: mode, Clients: *clients})
	warm.Await(2000, 20*time.Second)
	warm.Stop()
	manager, workers := p.cpu()
	l := load.Start(load.Config{Addr: p.addr, Mode: mode, Clients: *clients})
	time.Sleep(*duration)
	r := l.Stop()
	manager2, workers2 := p.cpu()
	n := float64(r.Requests)
	return figures{rate: n / r.Elapsed.Seconds(), p50: r.Quantile(50), p99: r.Quantile(99),
		managerCPU: (manager2 - manager) / n, workerCPU: (workers2 - workers) / n, lost: r.Lost()}, nil
}

// idle counts what a manager costs when nothing happens.
func idle(targets []target) error {
	const span = 10 * time.Second
	fmt.Printf("%-32s %14s %12s %14s %12s\n", "idle for "+span.String(), "RSS kB", "PSS kB", "RSS reloaded", "wake-ups")
	for _, t := range targets {
		if t.name == "plain node" || t.name == "handoff shared" || strings.HasSuffix(t.name, "NONE") {
			continue
		}
		p, err := run(t)
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		before := p.switches()
		time.Sleep(span)
		wakeups := p.switches() - before
		rss, pss := p.resident()
		reloaded := "-"
		if strings.HasPrefix(t.name, "handoff") {
			for range 3 {
				if _, err := p.reload(); err != nil {
					return err
				}
			}
			time.Sleep(8 * time.Second) // the drain
			n, _ := p.resident()
			reloaded = strconv.Itoa(n)
		}
		fmt.Printf("%-32s %14d %12d %14s %12d\n", t.name, rss, pss, reloaded, wakeups)
		p.stop()
	}
	fmt.Println()
	return nil
}

// reloads compares a reload with starting as many processes by hand, and the
// latency in a reload with the one before.
func reloads(targets []target) error {
	var byHand, reload []float64
	var steady, within []float64
	times := 10
	if *quick {
		times = 3
	}
	p, err := run(targets[1])
	if err != nil {
		return err
	}
	defer p.stop()
	for range times {
		d, err := startByHand(*workers)
		if err != nil {
			return err
		}
		byHand = append(byHand, d.Seconds()*1000)
		d, err = p.reload()
		if err != nil {
			return err
		}
		reload = append(reload, d.Seconds()*1000)
	}
	for range *rounds {
		for _, with := range []bool{false, true} {
			l := load.Start(load.Config{Addr: p.addr, Rate: 300})
			for end := time.Now().Add(*duration); time.Now().Before(end); {
				if with {
					if _, err := p.reload(); err != nil {
						return err
					}
				}
				time.Sleep(200 * time.Millisecond)
			}
			q := l.Stop().Quantile(99)
			if with {
				within = append(within, q)
			} else {
				steady = append(steady, q)
			}
		}
	}
	mid := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	fmt.Printf("%d processes started by hand, until all listen: %.0f ms; a reload: %.0f ms (ratio %.2f)\n",
		*workers, mid(byHand), mid(reload), mid(reload)/mid(byHand))
	fmt.Printf("p99 of new connections at 300/s: %.2f ms; with a reload every 200 ms: %.2f ms (every process boots beside the load on %d CPUs)\n",
		mid(steady), mid(within), runtime.NumCPU())
	return nil
}

// running is a target under way.
type running struct {
	cmd  *exec.Cmd
	addr string
	log  string
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

func run(t target) (*running, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	app, err := filepath.Abs("bench/testdata/app.js")
	if err != nil {
		return nil, err
	}
	program := []string{"node", app}
	if t.app != nil {
		program = t.app
	}
	args := append(slices.Clone(t.args), program...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), t.env...), "PORT="+port)
	log, err := os.CreateTemp("", "bench-log")
	if err != nil {
		return nil, err
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &running{cmd: cmd, addr: "127.0.0.1:" + port, log: log.Name()}
	want := 1
	if t.app == nil && (len(t.args) > 0 || len(t.env) > 0) {
		want = *workers
	}
	if err := p.awaitUp(want); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return p, nil
}

// awaitUp waits until the address answers and the workers are there.
func (p *running) awaitUp(want int) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			continue
		}
		c.Close()
		if want == 1 || len(p.children()) >= want {
			time.Sleep(300 * time.Millisecond)
			return nil
		}
	}
	return fmt.Errorf("does not listen on %s", p.addr)
}

func (p *running) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(12 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
	os.Remove(p.log)
}

// managers are the processes that serve nothing: of handoff keeper and master.
func (p *running) managers() []int {
	first := p.cmd.Process.Pid
	for _, pid := range childrenOf(first) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(b), "\x00__master\x00") {
			return []int{first, pid}
		}
	}
	return []int{first}
}

// children are the workers.
func (p *running) children() []int {
	managers := p.managers()
	return childrenOf(managers[len(managers)-1])
}

func childrenOf(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(s)
			pids = append(pids, n)
		}
	}
	return pids
}

// cpu returns the time used by the process and by its children, in µs. A
// process without children is a worker itself.
func (p *running) cpu() (manager, workers float64) {
	kids := p.children()
	for _, pid := range kids {
		workers += cpuOf(pid)
	}
	for _, pid := range p.managers() {
		manager += cpuOf(pid)
	}
	if len(kids) == 0 {
		return 0, manager
	}
	return manager, workers
}

// cpuOf sums over /proc/PID/schedstat, which counts nanoseconds, of all threads.
func cpuOf(pid int) float64 {
	var sum float64
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		var ns float64
		fmt.Sscan(string(b), &ns)
		sum += ns / 1000
	}
	return sum
}

// resident is what the managers have in memory, in kB: RSS, and PSS, which counts
// what both have of the binary once.
func (p *running) resident() (rss, pss int) {
	for _, pid := range p.managers() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		rss += field(string(b), "Rss")
		pss += field(string(b), "Pss")
	}
	return rss, pss
}

func field(status, key string) int {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// switches counts how often any thread has been woken.
func (p *running) switches() int {
	n := 0
	for _, pid := range p.managers() {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			n += field(string(b), "voluntary_ctxt_switches")
		}
	}
	return n
}

// reload signals and waits for the word in the log.
func (p *running) reload() (time.Duration, error) {
	count := func() int {
		b, _ := os.ReadFile(p.log)
		return strings.Count(string(b), `"event":"cluster.reloaded"`)
	}
	before, start := count(), time.Now()
	p.cmd.Process.Signal(syscall.SIGUSR2)
	for count() == before {
		if time.Since(start) > 20*time.Second {
			return 0, fmt.Errorf("no reload")
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start), nil
}

// startByHand starts n processes of the application at once and waits until all
// of them listen.
func startByHand(n int) (time.Duration, error) {
	var ports []string
	for range n {
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		ports = append(ports, port)
	}
	start := time.Now()
	for _, port := range ports {
		cmd := exec.Command("node", "bench/testdata/app.js")
		cmd.Env = append(os.Environ(), "PORT="+port)
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		defer func() { cmd.Process.Kill(); cmd.Wait() }()
	}
	for _, port := range ports {
		for {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				c.Close()
				break
			}
			if time.Since(start) > 20*time.Second {
				return 0, err
			}
			time.Sleep(time.Millisecond)
		}
	}
	return time.Since(start), nil
}
