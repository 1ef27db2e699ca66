package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// rackadmin is the root of RackMan's other program.
func rackadmin() *cobra.Command {
	root := &cobra.Command{
		Use:   "rackadmin",
		Short: "Manage versions of a program side by side",
		Long: `rackadmin OPERATION [PROJECT] [VERSION]

Keeps versions of a program side by side in one directory, one of them live. This is handoff: each operation is also
a handoff command (handoff deploy).

PROJECT is the directory; the default is the current one, or one above it. VERSION is a name, #N or ^N.`,
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
