// Command handoff runs network programs with zero downtime.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/bindintercept"
	"handoff/internal/service"
	"handoff/internal/takeover"
	"handoff/internal/upgrade"
)

// Set by the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

// Exit codes.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3 // as LSB defines it for status
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == bindintercept.Word {
		os.Exit(bindintercept.Trampoline(os.Args[2:])) // executes the worker
	}
	if len(os.Args) > 1 && os.Args[1] == takeover.Word {
		os.Exit(takeover.Process())
	}
	if len(os.Args) > 1 && os.Args[1] == masterWord {
		os.Exit(run(os.Args[2:], true))
	}
	if byName() == "rackman" {
		args, code := rackmanArgs(os.Args[1:])
		if code >= 0 {
			os.Exit(code)
		}
		os.Args = append(os.Args[:1:1], args...) // also the arguments of a master
	}
	os.Exit(run(os.Args[1:], false))
}

// failed is an error that is not about usage; with nil, everything was printed already.
type failed struct{ error }

func (f failed) Unwrap() error { return f.error }

// masterWord is the first argument of the master, which the keeper starts.
const masterWord = "__master"

// run runs a command line, and returns the exit code.
func run(args []string, asMaster bool) int {
	code := 0
	root, prefix := rootCommand(&code, asMaster), "handoff:"
	if byName() == "rackadmin" && !asMaster {
		root, prefix = rackadmin(), "rackadmin:"
	}
	if completing(args) {
		root.InitDefaultHelpCmd()
		completions(root)
	}
	root.SetArgs(numbers(args))
	explain := upgrade.Explainer()
	err := root.Execute()
	if err == nil {
		return code
	}
	explain(err)
	var said failed
	var outside service.Failure
	isFailed := errors.As(err, &said)
	if !isFailed || said.error != nil {
		others := ""
		if errors.Is(err, admin.ErrNotRunning) {
			others = admin.OfOthers(args...)
		}
		fmt.Fprintf(os.Stderr, "%s %v%s\n", prefix, err, others)
	}
	switch {
	case errors.Is(err, admin.ErrNotRunning):
		return exitNotRunning
	case isFailed, errors.As(err, &outside), errors.Is(err, admin.ErrWhich):
		return exitFailed
	}
	return exitUsage
}

// rootCommand is the tree of all commands. code is what run ends with.
func rootCommand(code *int, asMaster bool) *cobra.Command {
	var root *cobra.Command
	root = &cobra.Command{
		Use:     "handoff",
		Version: version,
		Short:   "Runs network programs with zero downtime",
		Long: `handoff runs N copies of a network program and holds its listening sockets.
A reload overlaps old and new: no connection is refused, reset or left hanging.`,
		Example: `  handoff run -n 4 server.js --port 80  arguments after the program belong to it
  kill -USR2 PID                        put the code that is now on disk into service`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(root, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate(fmt.Sprintf("handoff %s (%s)\n", version, commit))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the options", err, c.CommandPath())
	})
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, RunE: helpOn(root)})
	addCommands(root, code, asMaster)
	usual := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		if c == root {
			fmt.Print(screen(root))
			return
		}
		usual(c, args)
	})
	return root
}

func addCommands(root *cobra.Command, code *int, asMaster bool) {
	add := func(id, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range commands {
			c.GroupID = id
			if strings.HasSuffix(c.Use, " [NAME]") {
				c = byFlag(c)
			}
			root.AddCommand(c)
		}
	}
	add("run", "Run", runCommand(code, asMaster), waitCommand())
	add("look", "Look", listCommand(), statusCommand(code), topCommand(), eventsCommand(), logsCommand(), configCommand())
	add("change", "Change", reloadCommand(), scaleCommand(), restartCommand(), upgradeCommand(), stopCommand())
	add("set", "Set up", initCommand(), importCommand(), checkCommand(), proveCommand(), systemdCommand(), doctorCommand())
	root.AddCommand(notifyCommand(), versionCommand(), completionCommand(), hooksTopic())
	root.AddCommand(deployCommands()...)
	if man := manCommand(root); man != nil {
		root.AddCommand(man)
	}
}
