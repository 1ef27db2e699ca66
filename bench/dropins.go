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
type dropin struct{ name, module, program string }

const (
	reclusterProgram = `const b = require(MODULE)(APP, { workers: 2, timeout: 5, respawn: 0.1, log: {} })
let n = 0
b.on('ready', () => { if (++n === 2) console.log('ready') })
process.on('SIGUSR2', () => b.reload(() => console.log('reloaded')))
b.run()`
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
	install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", dir, "recluster@1.0.0", "cluster-master@0.2.1")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm install: %w\n%s", err, out)
	}
	app := filepath.Join(dir, "app.js")
	if err := os.WriteFile(app, []byte("require('http').createServer((q, r) => r.end('ok\\n')).listen(process.env.PORT, '127.0.0.1')"), 0o644); err != nil {
		return err
	}
	all := []dropin{
		{"recluster 1.0.0", "recluster", reclusterProgram},
		{"@handoff/node/recluster", filepath.Join(sdk, "recluster.js"), reclusterProgram},
		{"cluster-master 0.2.1", "cluster-master", masterProgram},
		{"@handoff/node/cluster-master", filepath.Join(sdk, "cluster-master.js"), masterProgram},
	}
	const reloads = 10
	fmt.Printf("%-30s %10s %10s   %s\n", "2 workers, new connections", "req/s", "ratio", fmt.Sprintf("lost in %d reloads, each asked for 300 ms after the one before was done, or 3 s", reloads))
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
	program := strings.NewReplacer("MODULE", strconv.Quote(d.module), "APP", strconv.Quote(app)).Replace(d.program)
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
	await := func(word string, patience time.Duration) bool {
		late := time.After(patience)
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
	done := 0
	for range reloads {
		time.Sleep(300 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGUSR2)
		if await("reloaded", 3*time.Second) {
			done++
		}
	}
	time.Sleep(time.Second)
	r = run.Stop()
	return rate, fmt.Sprintf("%d of %d (%d of %d were said to be done)", r.Lost(), r.Requests, done, reloads), nil
}
