package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

func setupCommand() *cobra.Command {
	link, asJSON := "", false
	c := &cobra.Command{
		Use:     "setup [PROJECT]",
		Short:   "Create a deployment directory",
		Long:    `Create a deployment directory: it gets a .rack.json. An existing deployment is left as it is.`,
		Example: "  handoff setup /srv/web\n  rackadmin setup /srv/web -s public",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := "."
			if len(args) > 0 {
				path = args[0]
			}
			if err := deploy.Setup(path, link); err != nil {
				return failed{err}
			}
			if asJSON {
				at, err := filepath.Abs(path)
				if err != nil {
					return failed{err}
				}
				return printJSON(map[string]any{"schema": 1, "project": at})
			}
			return nil
		},
	}
	c.Flags().StringVarP(&link, "resources", "s", "", "link this `directory`: where the folder has one of its own, into each version; else the live version's into the folder")
	jsonFlag(c, &asJSON)
	return c
}
