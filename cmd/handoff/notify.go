package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/sdnotify"
)

// notifyTimeout is how long the supervisor may take to look at a notice.
const notifyTimeout = 5 * time.Second

func notifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "notify KEY=VALUE...",
		Short: "Notify the supervisor from within a worker",
		Long: `Send a notification to handoff or systemd through NOTIFY_SOCKET:

  READY=1               ready to serve (handoff run --ready-when ready)
  STATUS=TEXT           a status line for people
  STOPPING=1            asks to be replaced
  RELOADING=1           rereading its configuration, until READY=1
  WATCHDOG=1            still alive (--watchdog)
  EXTEND_TIMEOUT_USEC=N needs N more microseconds to start or to drain`,
		Example: `  handoff notify READY=1
  handoff notify READY=1 "STATUS=cache is warm"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("nothing to send: give KEY=VALUE, for example `handoff notify READY=1`")
			}
			for _, a := range args {
				if key, _, ok := strings.Cut(a, "="); !ok || key == "" || strings.Contains(a, "\n") {
					return fmt.Errorf("cannot send %q: want KEY=VALUE", a)
				}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			to := os.Getenv("NOTIFY_SOCKET")
			if to == "" {
				return failed{errors.New("NOTIFY_SOCKET is not set: run this in a program that handoff or systemd runs")}
			}
			if err := sdnotify.SendAndWait(to, strings.Join(args, "\n"), notifyTimeout); err != nil {
				return failed{fmt.Errorf("cannot notify the supervisor: %w", err)}
			}
			return nil
		},
	}
}
