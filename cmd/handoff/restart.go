package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/api"
)

func restartCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "restart SLOT [NAME]",
		Short: "Replace the worker of one slot",
		Long: `Replace the worker of a slot by one of the same generation; the old one drains when the new one serves.
If no new worker can be started, the old one keeps serving. (To put new code into service, use reload.)
Exit code: 0 replaced; 1 refused, or no new worker can be started: the reason is printed with its last lines; 3 handoff is not running.`,
		Example: `  handoff restart 2
  handoff restart 0 web`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			numberFirst(args)
			slot, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("cannot restart %q: want the number of a slot, see `handoff status`; `handoff reload %s` replaces all workers", args[0], args[len(args)-1])
			}
			client, err := find(args[1:])
			if err != nil {
				return err
			}
			began := time.Now()
			old, err := client.Restart(slot)
			if err != nil {
				return failed{err}
			}
			pid, failure := 0, (*api.ChangeStatus)(nil)
			if !noWait {
				s, err := await(client, timeout, func(s api.Status) bool {
					for _, w := range s.Workers {
						if w.Slot == slot && w.Worker > old && w.Steered {
							pid = w.PID
							return true
						}
					}
					if f := s.Failed; f != nil && f.Change == api.ChangeRestart && f.Slot == slot && f.At.After(began) {
						failure = f
					}
					return failure != nil || slot >= s.Slots || s.State == api.StateStopping
				})
				if err != nil {
					return err
				}
				if pid == 0 && failure != nil {
					return failed{notDone(failure, fmt.Sprintf("%s: slot %d not restarted: %s; the old worker keeps serving", client.Name, slot, failure.Reason))}
				}
				if pid == 0 {
					return failed{fmt.Errorf("%s: superseded: it is %s, with %d workers", client.Name, s.State, s.Slots)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "slot": slot, "pid": pid})
			}
			if pid == 0 {
				fmt.Printf("%s: replacing slot %d\n", client.Name, slot)
			} else {
				fmt.Printf("%s: slot %d serves, pid %d\n", client.Name, slot, pid)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the new worker serves")
	durationFlag(c, &timeout, "timeout", "stop waiting after this time (default: no limit)")
	return c
}
