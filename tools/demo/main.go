// Command demo shows what handoff does: it runs the Node example, sends requests, changes
// its code and reloads it, deploys a version that cannot start, kills the master, and says
// after each what was lost. The example goes on running. `make demo` builds handoff first.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/internal/load"
)

const (
	binary  = "bin/handoff"
	example = "examples/node/plain/server.js"
	dir     = "bin/demo" // what the demo writes: the copy that is changed, the log, the pid
	name    = "demo"
	rate    = 200 // requests a second, half of them on new connections; fewer on a busy machine
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run of it.
type demo struct {
	port, script string
	loads        []*load.Run
	lost         int64 // so far
	requests     int64 // likewise
}

func run() error {
	if _, err := exec.LookPath("node"); err != nil {
		return errors.New("needs Node (https://nodejs.org): node is not in PATH")
	}
	if out, err := handoff("stop", "--name", name); err == nil {
		fmt.Print("Stopped the demo of before: ", out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	d := &demo{port: port, script: filepath.Join(dir, "server.js")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := d.write("Hello"); err != nil {
		return err
	}
	keeper, err := d.start()
	if err != nil {
		return err
	}
	fmt.Printf("\nA Node server with 4 workers serves on http://127.0.0.1:%s/; %d requests a second come,\nhalf of them on new connections, half on kept ones. None is sent twice.\n\n", d.port, rate)
	for _, mode := range []load.Mode{load.New, load.KeepAlive} {
		d.loads = append(d.loads, load.Start(load.Config{Addr: "127.0.0.1:" + d.port, Mode: mode, Rate: rate / 2, Clients: 16, Shed: true}))
	}
	begun := time.Now()
	err = errors.Join(
		d.step("nothing happens", func() (string, error) { return "", nil }),
		d.step("reload with new code", d.deploy("Good morning")),
		d.step("again", d.deploy("Good day")),
		d.step("again", d.deploy("Good evening")),
		d.step("a version that cannot start", d.broken),
		d.step("kill -9 of the master", func() (string, error) { return d.killMaster(keeper) }))
	var all []string
	for _, l := range d.loads {
		all = append(all, l.Stop().String())
	}
	fmt.Printf("\n%d of %d requests were lost, in %.0f s.\n", d.lost, d.requests, time.Since(begun).Seconds())
	if err != nil {
		return err
	}
	if d.lost > 0 {
		return fmt.Errorf("requests were lost (the log is %s):\n%s", filepath.Join(dir, "log"), strings.Join(all, "\n"))
	}
	fmt.Printf(`It goes on running, with pid %d. Try:

  curl http://127.0.0.1:%s/            who answers?
  %s status %s                slots, generations, memory; or: top
  kill -USR2 %-28dreload: edit %s before
  %s prove %s   the same and more; or with a program of yours
  %s stop %s                  end it

`, keeper, d.port, binary, name, keeper, d.script, binary, d.script, binary, name)
	return nil
}

// start starts handoff, which outlives the demo, and waits until it serves.
func (d *demo) start() (pid int, err error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "-n", "4", "--name", name, "--ready-when", "ready", "--pid-file", filepath.Join(dir, "pid"), d.script)
	cmd.Env = append(os.Environ(), "PORT="+d.port)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() { // ends with handoff, or the demo
		cmd.Wait()
		close(ended)
	}()
	ready := make(chan error, 1)
	go func() { // ends with the command
		_, err := handoff("wait", "--name", name, "--timeout", "30s")
		ready <- err
	}()
	select {
	case err = <-ready:
	case <-ended:
		err = errors.New("handoff has ended")
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("the example does not serve: %w\n%s", err, text)
	}
	return cmd.Process.Pid, nil
}

// step does something under load, and prints a line about it.
func (d *demo) step(what string, do func() (string, error)) error {
	requests, lost := d.counts()
	before := time.Now()
	seen, err := do()
	took := time.Since(before)
	for _, l := range d.loads { // what was under way is counted, too
		l.Await(rate/2, 10*time.Second)
	}
	now, failed := d.counts()
	if seen != "" {
		seen = fmt.Sprintf("%s, after %.1f s", seen, took.Seconds())
	}
	fmt.Printf("  %-28s %4d of %4d lost   %s\n", what, failed-lost, now-requests, seen)
	d.requests, d.lost = d.requests+now-requests, d.lost+failed-lost
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (d *demo) counts() (requests, lost int64) {
	for _, l := range d.loads {
		requests += l.Requests()
		lost += l.Failures()
	}
	return requests, lost
}

// write writes the example with another word in its answer.
func (d *demo) write(word string) error {
	text, err := os.ReadFile(example)
	if err != nil {
		return fmt.Errorf("run this in the repository: %w", err)
	}
	return os.WriteFile(d.script, bytes.Replace(text, []byte("`Hello "), []byte("`"+word+" "), 1), 0o644)
}

// deploy puts new code into service. That it answers is asked, not believed.
func (d *demo) deploy(word string) func() (string, error) {
	return func() (string, error) {
		if err := d.write(word); err != nil {
			return "", err
		}
		if out, err := handoff("reload", name); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		answer, err := d.ask()
		if err == nil && !strings.HasPrefix(answer, word) {
			err = fmt.Errorf("the answer is %q", answer)
		}
		return "answers: " + word, err
	}
}

func (d *demo) ask() (string, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+d.port, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	var b bytes.Buffer
	if _, err := b.ReadFrom(c); err != nil {
		return "", err
	}
	_, body, _ := strings.Cut(b.String(), "\r\n\r\n")
	return strings.TrimSpace(body), nil
}

// broken deploys what cannot start: the reload must fail, and nobody notice.
func (d *demo) broken() (string, error) {
	good, err := os.ReadFile(d.script)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(d.script, []byte("require('./not-there')\n"), 0o644); err != nil {
		return "", err
	}
	out, err := handoff("reload", name)
	if werr := os.WriteFile(d.script, good, 0o644); werr != nil {
		return "", werr
	}
	if err == nil {
		return "", fmt.Errorf("it was put into service: %s", out)
	}
	return "refused, the one before goes on", nil
}

// killMaster kills the master. The keeper has the pid, and starts the next one.
func (d *demo) killMaster(keeper int) (string, error) {
	old := master(keeper)
	p, err := linux.OpenPidfd(old)
	if err != nil {
		return "", err
	}
	defer p.Close()
	if err := p.Signal(unix.SIGKILL); err != nil {
		return "", err
	}
	for late := time.Now().Add(10 * time.Second); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		now := master(keeper)
		if now == 0 || now == old {
			continue
		}
		if out, err := handoff("status", name, "--json"); err == nil {
			var s struct {
				Ready, Slots int
			}
			if json.Unmarshal([]byte(out), &s) == nil && s.Ready == s.Slots {
				return fmt.Sprintf("another master, the same pid %d", keeper), nil
			}
		}
	}
	return "", errors.New("no other master has started in 10 s")
}

// master is the keeper's child that is one; 0: there is none.
func master(keeper int) int {
	for _, p := range linux.Children(keeper) {
		if args := linux.Arguments(p); len(args) > 1 && args[1] == "__master" {
			return p
		}
	}
	return 0
}

// handoff runs a command, and returns what it prints.
func handoff(args ...string) (string, error) {
	out, err := exec.Command(binary, args...).CombinedOutput()
	return string(out), err
}

// freePort is PORT, or 3000, or any other if that one is in use.
func freePort() (string, error) {
	for _, at := range []string{"127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "3000"), "127.0.0.1:0"} {
		l, err := net.Listen("tcp", at)
		if err == nil {
			defer l.Close()
			return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
		}
		if os.Getenv("PORT") != "" {
			return "", err
		}
	}
	return "", errors.New("no port is free on 127.0.0.1")
}
