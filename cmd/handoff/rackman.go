package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/config"
	"handoff/internal/logging"
)

// By the names rackman and rackadmin (links to this program) RackMan's own command
// lines are understood.

// byName tells which program is meant by the name that this one was called by.
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

// rackmanLines says what happens in RackMan's words.
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
			fmt.Fprintln(to, paint(tty, colour, fmt.Sprintf(format, args...)))
		}
		switch e.Event {
		case "cluster.started":
			say(out, 32, "RackMan Cluster Ready")
			say(out, 39, "You can reload the server manually using `kill -SIGHUP %d` or `kill -SIGUSR2 %d`", pid, pid)
		case "cluster.reloading":
			say(out, 33, "Reloading Workers")
		case "cluster.changed":
			say(out, 39, " - %s was changed", e.File)
		case "worker.ready":
			ready[e.Worker] = true
			say(out, 32, "Worker %d Now Listening on Port %d", e.Worker, e.Port)
		case "worker.shutdown":
			say(out, 39, "Worker %d Has Shutdown", e.Worker)
			delete(ready, e.Worker)
		case "worker.crashed":
			if !ready[e.Worker] {
				say(errs, 31, "Worker %d Failed To Start Successfully", e.Worker)
			} else {
				say(out, 39, "Worker %d Has Shutdown", e.Worker)
			}
			delete(ready, e.Worker)
		case "worker.terminated":
			say(errs, 31, "Worker %d Shutdown Timeout Expired - Killing", e.Worker)
		case "cluster.failed", "config.failed":
			say(errs, 31, "%s", e.Msg)
		case "cluster.shutdown":
			say(out, 33, "RackMan Cluster Terminating")
		case "cluster.stopped":
			say(out, 33, "All Workers Shutdown")
		}
	}
}

// apart has f called by a goroutine of its own: a reader that is stuck (a terminal that
// is stopped) keeps nobody waiting. What is more than it can hold is dropped.
func apart(f func(line []byte)) func(line []byte) {
	lines := make(chan []byte, 1000)
	go func() { // for as long as the process
		for line := range lines {
			f(line)
		}
	}()
	return func(line []byte) {
		select {
		case lines <- line:
		default:
		}
	}
}

// rackadmin is the root of RackMan's other program.
func rackadmin() *cobra.Command {
	root := &cobra.Command{
		Use:   "rackadmin",
		Short: "Versions of a program side by side",
		Long: `rackadmin OPERATION [PROJECT] [VERSION]

Keeps versions of a program side by side in one folder, one of them live. This is handoff: each operation is also
a command of it (handoff deploy).

PROJECT is the folder; where it is left out, it is the one here, or above. VERSION is a name, #N or ^N.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return failed{fmt.Errorf("%s is not a valid operation name; `rackadmin help` lists them", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, c := range deployCommands() {
		switch c.Name() {
		case "head":
			c.Aliases = append(c.Aliases, "version")
		case "versions":
			c.Use, c.Aliases = strings.Replace(c.Use, "versions", "list", 1), []string{"ls", "versions"}
		}
		root.AddCommand(c)
	}
	return root
}

// rackmanLog is the log of a master that speaks RackMan's words: its own on stderr,
// from errors on.
func rackmanLog(cfg *config.Run) bool { return cfg.Log == "rackman" }
