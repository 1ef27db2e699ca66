package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/config"
)

// printJSON prints an answer for machines. What has no schema of its own gets one.
func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func durationFlag(c *cobra.Command, p *time.Duration, name, usage string) {
	c.Flags().Func(name, usage, func(s string) (err error) {
		*p, err = config.ParseDuration(s)
		return err
	})
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}
