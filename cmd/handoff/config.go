package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"handoff/internal/api"
)

func configCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "config [NAME]",
		Short: "Show the configuration in effect",
		Long: `Show every key of handoff.toml with the value in effect: flags, environment and file combined.
Of the workers' environment only the names are shown.`,
		Example: `  handoff config
  handoff config web --json | jq -r .drain_timeout`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			var all map[string]any
			if err := client.Get(api.ConfigPath, &all); err != nil {
				return err
			}
			if asJSON {
				return printJSON(all)
			}
			delete(all, "schema")
			for _, key := range slices.Sorted(maps.Keys(all)) {
				b, _ := json.Marshal(all[key])
				fmt.Printf("%s = %s\n", key, b)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
