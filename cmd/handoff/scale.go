package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/api"
)

// notAFlag is put before an argument like -1, which is a number.
const notAFlag = "by:"

// numbers rewrites arguments of `handoff scale` so that -1 is not a flag.
func numbers(args []string) []string {
	args = slices.Clone(args)
	command := args
	if completing(args) {
		command = args[1 : len(args)-1] // what is being typed stays
	}
	if len(command) > 0 && command[0] == "scale" {
		for i, a := range command {
			if _, err := strconv.Atoi(a); err == nil && a[0] == '-' {
				command[i] = notAFlag + a
			}
		}
	}
	return args
}

// numberFirst puts a number before a name, in whatever order they were given.
func numberFirst(args []string) {
	if len(args) != 2 {
		return
	}
	if _, err := strconv.Atoi(args[0]); err == nil {
		return
	}
	if _, err := strconv.Atoi(args[1]); err == nil {
		args[0], args[1] = args[1], args[0]
	}
}

func scaleCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "scale N|+N|-N [NAME]",
		Short: "Change the number of workers",
		Long: `Change the number of workers, and wait until they serve. Workers that are removed drain first.
If the workers of the new slots cannot be started, the previous number is restored. Asked for again while a start
hangs, another worker is started beside it.
Exit code: 0 done; 1 refused, or the new workers cannot be started: the reason is printed with the last
lines of one; 3 handoff is not running.`,
		Example: `  handoff scale 8
  handoff scale +2 web
  handoff scale -1`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			for i := range args {
				args[i] = strings.TrimPrefix(args[i], notAFlag)
			}
			numberFirst(args)
			if _, err := strconv.Atoi(args[0]); err != nil {
				return fmt.Errorf("cannot scale to %q: want a number of workers, or how many more or fewer: 8, +2, -1", args[0])
			}
			client, err := find(args[1:])
			if err != nil {
				return err
			}
			began := time.Now()
			workers, err := client.Scale(args[0])
			if err != nil {
				return failed{err}
			}
			if !noWait {
				s, err := await(client, timeout, func(s api.Status) bool {
					return s.Slots != workers || s.Ready >= s.Slots || s.State == api.StateStopping
				})
				if err != nil {
					return err
				}
				if f := s.Failed; f != nil && f.Change == api.ChangeScale && f.Workers == workers && f.At.After(began) {
					return failed{notDone(f, fmt.Sprintf("%s: not scaled to %d workers: slot %d: %s; %d keep serving", client.Name, workers, f.Slot, f.Reason, s.Ready))}
				}
				if s.State == api.StateStopping || s.Slots != workers {
					return failed{fmt.Errorf("%s: superseded: it is %s, with %d workers", client.Name, s.State, s.Slots)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "workers": workers})
			}
			fmt.Printf("%s: %d workers\n", client.Name, workers)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until they serve")
	durationFlag(c, &timeout, "timeout", "stop waiting after this time (default: no limit)")
	return c
}
