package main

import (
	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

func registerCommand() *cobra.Command {
	var a after
	c := &cobra.Command{
		Use:     "register [PROJECT] VERSION",
		Short:   "Register an existing directory as a version",
		Long:    `Register a directory that was copied into the deployment by other means. The live version does not change.`,
		Example: "  handoff register v7",
		Args:    cobra.RangeArgs(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, 1, func(f *deploy.Folder, rest []string) error {
				version := ""
				if len(rest) > 0 {
					version = rest[0]
				}
				if err := f.Register(version); err != nil {
					return err
				}
				return a.say(f, version, 0, nil)
			})
		},
	}
	jsonFlag(c, &a.asJSON)
	return c
}
