package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/config"
)

// helpOn is `handoff help WORD...`.
func helpOn(root *cobra.Command) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		c, _, err := root.Find(args)
		if c == nil || err != nil || c == root && len(args) > 0 {
			return fmt.Errorf("there is no help on %q; `handoff --help` lists the commands", strings.Join(args, " "))
		}
		c.InitDefaultHelpFlag()
		return c.Help()
	}
}

// screen is `handoff --help`: it fits 80 columns and 24 lines.
func screen(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`handoff runs N copies of a network program and holds its listening sockets: a
reload overlaps old and new, no connection is refused, reset or left hanging.
  handoff run -n 4 server.js    then kill -USR2 PID puts new code into service
`)
	for _, group := range root.Groups() {
		for i, c := range slices.DeleteFunc(slices.Clone(root.Commands()), func(c *cobra.Command) bool { return c.GroupID != group.ID }) {
			title := ""
			if i == 0 {
				title = group.Title
			}
			fmt.Fprintf(&b, "%-8s %-9s %s\n", title, c.Name(), c.Short)
		}
	}
	b.WriteString("Versions  setup, register, deploy, switch, rollback, clean, head, versions\nhandoff COMMAND --help says more. Also: help hooks, completion, notify, version\n")
	return b.String()
}

// serviceNames completes the name of what runs.
func serviceNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return admin.Names(), cobra.ShellCompDirectiveNoFileComp
}

// hooksTopic is no command: it has only help.
func hooksTopic() *cobra.Command {
	var events []string
	for _, e := range config.HookEvents {
		events = append(events, "  "+e)
	}
	return &cobra.Command{
		Use:   "hooks",
		Short: "About hooks",
		Long: `A hook is a command of the shell that runs when something happens:

  handoff run --hook 'worker.crashed=mail -s "$HANDOFF_NAME crashed" root' server.js

or in handoff.toml:

  [hooks]
  "worker.crashed" = "./alert.sh"
  before_reload = ["./frozen.sh", "npm run migrate"]

It gets the event as JSON on its stdin, and each field of it as a variable: HANDOFF_EVENT,
HANDOFF_NAME, HANDOFF_SLOT, HANDOFF_PID, HANDOFF_GENERATION, HANDOFF_REASON, HANDOFF_FILE…
It runs where handoff was started, as handoff's user, one after another in the order of the
events. What it writes goes to the log. After --hook-timeout it is killed. How it ends changes
nothing, but for two that may refuse, by an exit code that is not 0:

  before_reload   nothing is reloaded, and handoff reload says why
  before_ready    the worker is not put into service; a reload with it is given up

The events:

` + strings.Join(events, "\n") + `

RackMan's .rackhooks.js runs as it is in a folder that RackMan would run.`,
	}
}
