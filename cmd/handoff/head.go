package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func headCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "head [PROJECT]",
		Short:   "Print the live version",
		Long:    `Print the live version; nothing if there is none.`,
		Example: "  handoff head /srv/web",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, r, err := inspect(args)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "project": path, "head": r.Head})
			}
			if r.Head != "" {
				fmt.Println(r.Head)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
