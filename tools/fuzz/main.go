// Command fuzz runs every fuzz target of the repository, one after another, for some time
// each. The list of targets is the source: what is called Fuzz in a _test.go file is in it.
//
//	go run ./tools/fuzz -list
//	go run ./tools/fuzz -time 1m                   what `make fuzz` does
//	go run ./tools/fuzz -time 1h -jobs 2 -run 'FuzzRecord|FuzzEnvFile' -log fuzz.tsv
//	go run ./tools/fuzz -time 0                    pack what the cache has found, run nothing
//
// A fault that is found is written by go test into testdata/fuzz beside the target, where
// every later run of the unit tests tries it. Inputs that have led to new code are kept in
// testdata/corpus/TARGET.txtar: they are put into Go's cache before a run, and packed again
// with -keep afterwards.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

type settings struct {
	time           time.Duration
	jobs, parallel int
	run            *regexp.Regexp
	keep           bool
	pause          string
	log            string
	cache          string
}

func main() {
	var s settings
	list := flag.Bool("list", false, "list the targets")
	run := flag.String("run", ".", "only targets that match this `regexp`")
	flag.DurationVar(&s.time, "time", time.Minute, "how long each target runs")
	flag.IntVar(&s.jobs, "jobs", 1, "how many targets run at once")
	flag.IntVar(&s.parallel, "parallel", 0, "processes of a target; 0: as many as CPUs")
	flag.BoolVar(&s.keep, "keep", false, "pack the corpora into testdata/corpus")
	flag.StringVar(&s.pause, "pause", "", "start no target, and stop those that run, while this `file` exists")
	flag.StringVar(&s.log, "log", "", "append a line for each target to this `file`: name, seconds, executions")
	flag.Parse()
	s.run = regexp.MustCompile(*run)
	targets, err := Targets(".")
	if err == nil && *list {
		for _, t := range targets {
			fmt.Println(t.Package, t.Name)
		}
		return
	}
	if err == nil {
		err = fuzz(s, targets)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func fuzz(s settings, targets []Target) error {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	s.cache = filepath.Join(strings.TrimSpace(string(out)), "fuzz")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	queue := make(chan Target) // closed when all are given out
	go func() {                // ends with the list, or at a signal
		defer close(queue)
		for _, t := range targets {
			if !s.run.MatchString(t.Name) {
				continue
			}
			select {
			case queue <- t:
			case <-ctx.Done():
				return
			}
		}
	}()
	var mu sync.Mutex // guards failed, and what is printed
	var failed []string
	var jobs sync.WaitGroup
	for range s.jobs {
		jobs.Go(func() {
			for t := range queue {
				line, err := s.one(ctx, t)
				mu.Lock()
				fmt.Println(line)
				if err != nil {
					failed = append(failed, t.Name)
				}
				mu.Unlock()
			}
		})
	}
	jobs.Wait()
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// one runs a target, in pieces where it is to pause, and returns a line about it.
func (s settings) one(ctx context.Context, t Target) (line string, err error) {
	if err := t.unpack(s.cache); err != nil {
		return t.Name + ": " + err.Error(), err
	}
	execs, spent := 0, time.Duration(0)
	for spent < s.time && ctx.Err() == nil {
		if s.paused() {
			time.Sleep(time.Second)
			continue
		}
		n, took, out, err := s.piece(ctx, t, s.time-spent)
		execs, spent = execs+n, spent+took
		if err != nil {
			return fmt.Sprintf("%s: %v\n%s", t, err, out), err
		}
	}
	if s.keep {
		err = t.pack(s.cache)
	}
	line = fmt.Sprintf("%s\t%s\t%.0f\t%d", t.Package, t.Name, spent.Seconds(), execs)
	if f, ferr := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); ferr == nil {
		fmt.Fprintln(f, line)
		f.Close()
	}
	return line, err
}

func (s settings) paused() bool {
	_, err := os.Stat(s.pause)
	return s.pause != "" && err == nil
}

// piece runs a target until the time is over, or it is to pause. That is no failure.
func (s settings) piece(ctx context.Context, t Target, left time.Duration) (execs int, took time.Duration, out string, err error) {
	args := []string{"test", "-vet=off", "-run", "^$", "-fuzz", "^" + t.Name + "$", "-fuzztime", left.String(), "-fuzzminimizetime", minimize}
	if s.parallel > 0 {
		args = append(args, "-parallel", strconv.Itoa(s.parallel))
	}
	cmd := exec.Command("go", append(args, "./"+t.Package)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began, done, stopped := time.Now(), make(chan error, 1), false
	if err := cmd.Start(); err != nil {
		return 0, 0, "", err
	}
	go func() { done <- cmd.Wait() }() // ends with the process
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err = <-done:
			if out = said.String(); stopped || cutOff(out) {
				err = nil
			}
			return executions(out), elapsed(out, time.Since(began)), out, err
		case <-tick.C:
			if !stopped && (ctx.Err() != nil || s.paused()) {
				stopped = true
				unix.Kill(-cmd.Process.Pid, unix.SIGINT)
			}
		}
	}
}

// cutOff reports whether a run failed by its own end alone: Go's fuzzing may report that it
// was in the middle of an input when its time was over (golang/go#75804: a race in its coordinator, and no input).
func cutOff(out string) bool {
	return strings.Contains(out, "    context deadline exceeded\n") && !strings.Contains(out, "Failing input written")
}

// minimize is how long an interesting input is made smaller; Go's minute would be most of a
// short run.
const minimize = "1s"

var progress = regexp.MustCompile(`elapsed: (\S+), execs: (\d+)`)

// executions and elapsed read the last line of progress. Building is not counted.
func executions(out string) (n int) {
	if all := progress.FindAllStringSubmatch(out, -1); len(all) > 0 {
		n, _ = strconv.Atoi(all[len(all)-1][2])
	}
	return n
}

func elapsed(out string, wall time.Duration) time.Duration {
	if all := progress.FindAllStringSubmatch(out, -1); len(all) > 0 {
		if d, err := time.ParseDuration(all[len(all)-1][1]); err == nil {
			return max(d, time.Second)
		}
	}
	return max(wall, time.Second)
}
