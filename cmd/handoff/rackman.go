package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"handoff/internal/config"
	"handoff/internal/events"
	"handoff/internal/logging"
	"handoff/internal/printable"
)

// With the names rackman and rackadmin (links to this program) it accepts RackMan's
// command lines.

// byName returns the program by the name with which this one was called.
func byName() string {
	switch name := filepath.Base(os.Args[0]); name {
	case "rackman", "rackadmin":
		return name
	}
	return ""
}

// rackmanArgs turns `rackman PROJECT [VERSION]` into the command line of run.
func rackmanArgs(args []string) (runArgs []string, code int) {
	tty := term.IsTerminal(int(os.Stderr.Fd()))
	wrong := func(text string) ([]string, int) {
		fmt.Fprintln(os.Stderr, paint(tty, 31, text))
		fmt.Println("USAGE: rackman PROJECT [VERSION]")
		return nil, exitFailed
	}
	var flags, words []string
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			flags = append(flags, a)
		} else {
			words = append(words, a)
		}
	}
	if len(flags) == 1 && (flags[0] == "-h" || flags[0] == "--help") {
		fmt.Println("USAGE: rackman PROJECT [VERSION]\n\nThis is handoff: `handoff run PROJECT` with RackMan's words. handoff run --help lists options, which may stand before PROJECT as --option=value.")
		return nil, 0
	}
	if len(words) == 0 {
		return wrong("No project specified in command line, please try again with a valid project")
	}
	if info, err := os.Stat(words[0]); err != nil || !info.IsDir() || len(words) > 2 {
		return wrong("Invalid project specified, please try again with a valid project")
	}
	runArgs = append([]string{"run", "--log", "rackman"}, flags...)
	if len(words) > 1 {
		runArgs = append(runArgs, "--rack-version="+words[1])
	}
	return append(runArgs, words[0]), -1
}

// paint colours a text on a terminal.
func paint(on bool, colour int, text string) string {
	if !logging.Colour(on) {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[39m", colour, text)
}

// rackmanLines prints events with RackMan's wording.
func rackmanLines(out, errs io.Writer, pid int, tty bool) func(line []byte) {
	ready := map[int]bool{}
	return func(line []byte) {
		var e struct {
			Event, File, Reason, Msg string
			Worker, Port             int
		}
		if json.Unmarshal(line, &e) != nil {
			return
		}
		say := func(to io.Writer, colour int, format string, args ...any) {
			fmt.Fprintln(to, paint(tty, colour, printable.Text(fmt.Sprintf(format, args...)))) // a file's name may be a worker's
		}
		switch e.Event {
		case events.ClusterStarted:
			say(out, 32, "RackMan Cluster Ready")
			say(out, 39, "You can reload the server manually using `kill -SIGHUP %d` or `kill -SIGUSR2 %d`", pid, pid)
		case events.ClusterReloading:
			say(out, 33, "Reloading Workers")
		case events.ClusterChanged:
			say(out, 39, " - %s was changed", e.File)
		case events.WorkerReady:
			ready[e.Worker] = true
			say(out, 32, "Worker %d Now Listening on Port %d", e.Worker, e.Port)
		case events.WorkerShutdown:
			say(out, 39, "Worker %d Has Shutdown", e.Worker)
			delete(ready, e.Worker)
		case events.WorkerCrashed:
			if !ready[e.Worker] {
				say(errs, 31, "Worker %d Failed To Start Successfully", e.Worker)
			} else {
				say(out, 39, "Worker %d Has Shutdown", e.Worker)
			}
			delete(ready, e.Worker)
		case events.WorkerTerminated:
			say(errs, 31, "Worker %d Shutdown Timeout Expired - Killing", e.Worker)
		case events.ClusterFailed, events.ConfigFailed:
			say(errs, 31, "%s", e.Msg)
		case events.ClusterShutdown:
			say(out, 33, "RackMan Cluster Terminating")
		case events.ClusterStopped:
			say(out, 33, "All Workers Shutdown")
		}
	}
}

// apart calls say in a goroutine of its own, so that a blocked reader (a stopped
// terminal) does not block the master. It drops lines if there are too many. end waits
// until everything is printed, for at most so long.
func apart(say func(line []byte)) (hear func(line []byte), end func(timeout time.Duration)) {
	lines, done := make(chan []byte, 1000), make(chan struct{}) // lines is never closed: nil is its end
	go func() {                                                 // ends at nil, or with the process
		defer close(done)
		for line := range lines {
			if line == nil {
				return
			}
			say(line)
		}
	}()
	hear = func(line []byte) {
		select {
		case lines <- line:
		default:
		}
	}
	end = func(timeout time.Duration) {
		late := time.After(timeout)
		select {
		case lines <- nil:
		case <-late:
			return
		}
		select {
		case <-done:
		case <-late:
		}
	}
	return hear, end
}

// rackmanLog is the log of a master with RackMan's wording: its own log goes to stderr,
// errors only.
func rackmanLog(cfg *config.Run) bool { return cfg.Log == "rackman" }
