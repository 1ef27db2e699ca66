package main

import (
	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

func switchCommand() *cobra.Command {
	var a after
	c := &cobra.Command{
		Use:     "switch [PROJECT] VERSION",
		Aliases: []string{"checkout"},
		Short:   "Make another version live",
		Long: `Make another version live: a handoff that runs the deployment reloads at once. If the version does not become ready,
the previous one is live again, and the exit code is 1.

VERSION is a name, #N (the N-th in handoff versions, from 0), or ^N (N before the live one in that list; ^-1 is the one after).`,
		Example: "  handoff switch v12\n  handoff switch /srv/web '#0'\n  rackadmin checkout '^1'",
		Args:    cobra.RangeArgs(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, 1, func(f *deploy.Folder, rest []string) error {
				ref := ""
				if len(rest) > 0 {
					ref = rest[0]
				}
				version, err := f.Resolve(ref)
				if err != nil {
					return err
				}
				return a.liveVersion(f, version)
			})
		},
	}
	a.flags(c)
	return c
}
