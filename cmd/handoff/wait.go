package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
)

func waitCommand() *cobra.Command {
	asJSON, timeout := false, time.Duration(0)
	c := &cobra.Command{
		Use:   "wait [NAME]",
		Short: "Wait until every slot is served",
		Long: `Wait until a service serves every slot, even if it is not running yet.
Exit code: 0 it serves; 1 not within --timeout; 3 handoff is not running by then.`,
		Example: `  handoff wait --timeout 30s
  handoff wait web --timeout 1m && curl -s http://127.0.0.1:3000/`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			began := time.Now()
			if len(args) > 0 {
				if err := admin.CheckName(args[0]); err != nil {
					return err
				}
			}
			for {
				client, err := find(args)
				if err == nil {
					var s api.Status
					if s, err = client.Status(); err == nil && s.Serves() {
						if asJSON {
							return printJSON(s)
						}
						fmt.Printf("%s: %d of %d slots ready\n", client.Name, s.Ready, s.Slots)
						return nil
					}
					if err == nil {
						err = fmt.Errorf("%s: %s, %d of %d slots ready%s", client.Name, s.State, s.Ready, s.Slots, unserved(s))
					}
				}
				if errors.Is(err, admin.ErrWhich) {
					return err
				}
				if timeout > 0 && time.Since(began) > timeout {
					return failed{fmt.Errorf("not ready within %v: %w", timeout, err)}
				}
				time.Sleep(look)
			}
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON when it serves")
	c.Flags().Bool("ready", true, "has no effect: wait always waits for this")
	c.Flags().MarkHidden("ready") // scripts have it
	durationFlag(c, &timeout, "timeout", "stop waiting after this time (default: no limit)")
	return c
}

// unserved says on which addresses nobody accepts.
func unserved(s api.Status) string {
	if not := s.Unserved(); len(not) > 0 {
		return ", nobody accepts on " + strings.Join(not, ", ")
	}
	return ""
}
