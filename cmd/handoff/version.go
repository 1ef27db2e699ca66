package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

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
