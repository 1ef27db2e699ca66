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
	exitNotRunning = 3 // as LSB has it for status
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == bindintercept.Word {
		os.Exit(bindintercept.Trampoline(os.Args[2:])) // becomes the worker
	}
	if len(os.Args) > 1 && os.Args[1] == masterWord {
		os.Exit(run(os.Args[2:], true))
	}
	if byName() == "rackman" {
		args, code := rackmanArgs(os.Args[1:])
		if code >= 0 {
			os.Exit(code)
		}
		os.Args = append(os.Args[:1:1], args...) // what a master is started with, too
	}
	os.Exit(run(os.Args[1:], false))
}

// failed is an error that is not about usage; of nil, all has been said.
type failed struct{ error }

// masterWord is the first argument of the master, which the keeper starts.
const masterWord = "__master"

func run(args []string, asMaster bool) int {
	code := 0
	root := &cobra.Command{
		Use:   "handoff",
		Short: "Runs network programs with zero downtime",
		Long: `handoff runs N copies of a network program and holds its listening sockets.
A reload overlaps old and new: not one connection is refused, reset or left hanging.`,
		Example: `  handoff run -n 4 server.js --port 80  what follows the program is its own
  kill -USR2 PID                        put the code that is on disk now into service`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; `handoff --help` lists them (did you mean `handoff run %s`?)", args[0], strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the options", err, c.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, RunE: helpOn(root)})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run"}, &cobra.Group{ID: "look", Title: "Look"}, &cobra.Group{ID: "change", Title: "Change"}, &cobra.Group{ID: "set", Title: "Set up"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", runCommand(&code, asMaster), waitCommand())
	add("look", listCommand(), statusCommand(), topCommand(), eventsCommand(), logsCommand(), configCommand())
	add("change", reloadCommand(), scaleCommand(), restartCommand(), upgradeCommand(), stopCommand())
	add("set", initCommand(), importCommand(), checkCommand(), proveCommand(), systemdCommand(), doctorCommand())
	root.AddCommand(notifyCommand(), versionCommand(), hooksTopic())
	if man := manCommand(root); man != nil {
		root.AddCommand(man)
	}
	for _, c := range root.Commands() {
		if strings.Contains(c.Use, "[NAME]") {
			c.ValidArgsFunction = serviceNames
		}
	}
	usual := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		if c == root {
			fmt.Print(screen(root))
			return
		}
		usual(c, args)
	})
	for _, c := range deployCommands() {
		root.AddCommand(c)
	}
	prefix := "handoff:"
	if byName() == "rackadmin" && !asMaster {
		root, prefix = rackadmin(), "rackadmin:"
	}
	root.SetArgs(numbers(args))
	if err := root.Execute(); err != nil {
		var f failed
		var outside service.Failure
		isFailed := errors.As(err, &f) || errors.As(err, &outside)
		if f.error != nil || !errors.As(err, &f) {
			fmt.Fprintln(os.Stderr, prefix, err)
		}
		switch {
		case errors.Is(err, admin.ErrNotRunning):
			return exitNotRunning
		case isFailed, errors.Is(err, admin.ErrWhich):
			return exitFailed
		}
		return exitUsage
	}
	return code
}

func versionCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "version": version, "commit": commit})
			}
			_, err := fmt.Printf("handoff %s (%s)\n", version, commit)
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
