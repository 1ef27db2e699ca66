package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/load"
)

// A drop-in is a program that starts a cluster by a module, reloads at SIGUSR2, and
// says "ready" and "reloaded".
type dropin struct {
	name, module, program string
	sticky                string // the module of it, where there is one
}

const (
	reclusterProgram = `const b = require(MODULE)(APP, { workers: 2, timeout: 5, respawn: 0.1, log: {} })
let n = 0
b.on('ready', () => { if (++n === 2) console.log('ready') })
process.on('SIGUSR2', () => b.reload(() => console.log('reloaded')))
b.run()`
	// The listener is the balancer's; the workers of the original take its connections.
	stickyProgram = `const b = require(MODULE)(APP, { workers: 2, timeout: 5, respawn: 0.1, log: {}, readyWhen: 'ready' })
b.run()
require(STICKY).createBalancer({ activeWorkers: b.activeWorkers }).listen(process.env.PORT, '127.0.0.1')
let n = 0
b.on('ready', () => { if (++n === 2) setTimeout(() => console.log('ready'), 200) })
process.on('SIGUSR2', () => b.reload(() => console.log('reloaded')))`
	masterProgram = `const cm = require(MODULE)
cm({ exec: APP, size: 2, repl: null, signals: false, minRestartAge: 300 })
let n = 0
const up = () => { if (++n === 2) console.log('ready') }
require('cluster').on('listening', up)
const look = setInterval(() => {
  const ws = Object.values(require('cluster').workers || {})
  if (n < 2 && ws.length === 2 && ws.every((w) => w.ready)) { n = 2; console.log('ready') }
  if (n >= 2) clearInterval(look)
}, 10)
process.on('SIGUSR2', () => cm.restart(() => console.log('reloaded')))`
)

// dropins puts each original that npm still has beside what takes its place: the same
// program, but for the module.
func dropins(dir, bin string) error {
	sdk, err := filepath.Abs("sdk/node")
	if err != nil {
		return err
	}
	install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", dir, "recluster@1.0.0", "cluster-master@0.2.1", "sticky-listen@3.3.0")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm install: %w\n%s", err, out)
	}
	app := filepath.Join(dir, "app.js")
	if err := os.WriteFile(app, []byte("require('http').createServer((q, r) => r.end('ok\\n')).listen(process.env.PORT, '127.0.0.1')"), 0o644); err != nil {
		return err
	}
	all := []dropin{
		{"recluster 1.0.0", "recluster", reclusterProgram, ""},
		{"@handoff/node/recluster", filepath.Join(sdk, "recluster.js"), reclusterProgram, ""},
		{"cluster-master 0.2.1", "cluster-master", masterProgram, ""},
		{"@handoff/node/cluster-master", filepath.Join(sdk, "cluster-master.js"), masterProgram, ""},
		{"sticky-listen 3.3.0", "recluster", stickyProgram, filepath.Join(dir, "node_modules", "sticky-listen")},
		{"@handoff/node/sticky-listen", filepath.Join(sdk, "recluster.js"), stickyProgram, filepath.Join(sdk, "sticky-listen.js")},
	}
	const reloads = 10
	fmt.Printf("Lost in %d reloads, each asked for 300 ms after the one before was done, or 3 s; done: those whose callback came.\n", reloads)
	fmt.Printf("%-30s %10s %10s   %-18s %-20s %s\n", "2 workers, new connections", "req/s", "ratio", "lost", "lost, kept-alive", "done")
	base := 0.0
	for i, d := range all {
		rate, lost, err := d.measure(dir, bin, app, reloads)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if i%2 == 0 {
			base = rate
		}
		fmt.Printf("%-30s %10.0f %10.2f   %s\n", d.name, rate, rate/base, lost)
	}
	fmt.Println()
	return nil
}

func (d dropin) measure(dir, bin, app string, reloads int) (rate float64, lost string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, "", err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	if d.sticky != "" { // its clients have one address here: one worker serves them all
		app = filepath.Join(dir, "sticky-app.js")
		text := "const server = require('http').createServer((q, r) => r.end('ok\\n'))\nrequire(" + strconv.Quote(d.sticky) + ").listen(server)\nprocess.send({ cmd: 'ready' })\n"
		if err := os.WriteFile(app, []byte(text), 0o644); err != nil {
			return 0, "", err
		}
	}
	program := strings.NewReplacer("MODULE", strconv.Quote(d.module), "STICKY", strconv.Quote(d.sticky), "APP", strconv.Quote(app)).Replace(d.program)
	file := filepath.Join(dir, "caller.js")
	if err := os.WriteFile(file, []byte(program), 0o644); err != nil {
		return 0, "", err
	}
	cmd := exec.Command("node", file)
	cmd.Env = append(os.Environ(), "PORT="+port, "HANDOFF_BIN="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", err
	}
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	ended := make(chan struct{})
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}()
	said := make(chan string, 100)
	go func() { // ends with the program
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			said <- lines.Text()
		}
		close(said)
		cmd.Wait()
		close(ended)
	}()
	await := func(word string, limit time.Duration) bool {
		late := time.After(limit)
		for {
			select {
			case s, ok := <-said:
				if !ok || s == word {
					return ok
				}
			case <-late:
				return false
			}
		}
	}
	if !await("ready", 20*time.Second) {
		return 0, "", fmt.Errorf("it does not come up")
	}
	run := load.Start(load.Config{Addr: addr, Clients: *clients})
	time.Sleep(*duration)
	r := run.Stop()
	rate = float64(r.Requests) / r.Elapsed.Seconds()
	run = load.Start(load.Config{Addr: addr, Clients: 16})
	kept := load.Start(load.Config{Addr: addr, Clients: 16, Mode: load.KeepAlive})
	done := 0
	for range reloads {
		time.Sleep(300 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGUSR2)
		if await("reloaded", 3*time.Second) {
			done++
		}
	}
	time.Sleep(time.Second)
	r, k := run.Stop(), kept.Stop()
	return rate, fmt.Sprintf("%-18s %-20s %d of %d", fmt.Sprintf("%d of %d", r.Lost(), r.Requests), fmt.Sprintf("%d of %d", k.Lost(), k.Requests), done, reloads), nil
}
