package main

import (
	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

func rollbackCommand() *cobra.Command {
	var a after
	steps := 1
	c := &cobra.Command{
		Use:     "rollback [PROJECT]",
		Short:   "Make the previous version live",
		Long:    `Make the previously live version live again, by the history; a second rollback goes further back.`,
		Example: "  handoff rollback\n  handoff rollback /srv/web --steps 2",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, 0, func(f *deploy.Folder, _ []string) error {
				return a.live(f, func(serves deploy.Serves) (string, error) { return f.Rollback(steps, who(), serves) })
			})
		},
	}
	c.Flags().IntVar(&steps, "steps", 1, "number of `steps` back")
	a.flags(c)
	return c
}
