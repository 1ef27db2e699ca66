package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

func cleanCommand() *cobra.Command {
	var what deploy.Clean
	asJSON := false
	c := &cobra.Command{
		Use:   "clean [PROJECT] [VERSION]",
		Short: "Remove old versions and unfinished deploys",
		Long: `Remove versions: those before VERSION in the list, all but the newest (--keep), or old ones (--older-than).
The live version, the one before it, and anything that is not a version are never removed.
Without any of these, only the remains of interrupted deploys are removed.`,
		Example: "  handoff clean --keep 5\n  handoff clean /srv/web v7 --dry-run\n  handoff clean --older-than 720h",
		Args:    cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, 1, func(f *deploy.Folder, rest []string) error {
				if len(rest) > 0 {
					what.Until = rest[0]
				}
				names, err := f.Clean(what)
				if asJSON && err == nil {
					return printJSON(map[string]any{"schema": 1, "project": f.Path, "removed": append([]string{}, names...), "dry_run": what.Dry})
				}
				for _, name := range names {
					fmt.Println(name)
				}
				return err
			})
		},
	}
	c.Flags().IntVar(&what.Keep, "keep", 0, "keep this `many` of the newest")
	durationFlag(c, &what.OlderThan, "older-than", "remove those deployed longer ago than this")
	c.Flags().BoolVar(&what.Dry, "dry-run", false, "only print what would be removed")
	jsonFlag(c, &asJSON)
	return c
}
