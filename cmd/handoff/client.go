package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
)

// look is how often a waiting command polls.
const look = 50 * time.Millisecond

// find returns the client for a command's NAME argument, if there is one.
func find(args []string) (*admin.Client, error) {
	if len(args) > 0 {
		return admin.Which(args[0])
	}
	return admin.Which("")
}

// byFlag lets a command that takes NAME take --name as well.
func byFlag(c *cobra.Command) *cobra.Command {
	name, most, run := "", len(strings.Fields(c.Use))-1, c.RunE
	c.Flags().StringVar(&name, "name", "", "the `service`: the same as NAME, which may also be its pid or its folder")
	c.RunE = func(c *cobra.Command, args []string) error {
		if name != "" && len(args) == most {
			return fmt.Errorf("give the service once: %s or --name %s", args[most-1], name)
		}
		if name != "" {
			args = append(args, name)
		}
		return run(c, args)
	}
	return c
}

// await polls the status until ok accepts it. timeout 0 is none. Between two masters
// there is no response, until the keeper has started the next one.
func await(client *admin.Client, timeout time.Duration, ok func(api.Status) bool) (s api.Status, err error) {
	began, heard := time.Now(), time.Now()
	for {
		s, err = client.Status()
		if err == nil {
			if heard = time.Now(); ok(s) {
				return s, nil
			}
		} else if time.Since(heard) > masterless || !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, admin.ErrEnded) {
			if errors.Is(err, admin.ErrNotRunning) {
				return s, err
			}
			return s, failed{err}
		}
		if timeout > 0 && time.Since(began) > timeout {
			return s, failed{fmt.Errorf("%s: not done within %v: %s, %d of %d slots ready, generation %d of %d", client.Name, timeout, s.State, s.Ready, s.Slots, s.Generation, s.Wanted)}
		}
		time.Sleep(look)
	}
}

// masterless is how long there may be no master while a command waits: more than
// the keeper's longest wait before it starts the next one.
const masterless = 4 * time.Second

// follows streams lines to f, and with follow continues with those of the next master.
func follows(args []string, path string, last int, follow bool, f func(line []byte), end ...func()) error {
	client, err := find(args)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	var seen time.Time
	for n := last; ; n = 1 << 20 { // everything of the next master
		err := client.Stream(fmt.Sprintf("%s?last=%d&follow=%d", path, n, btoi(follow)), func(line []byte) {
			var e struct{ Time time.Time }
			if json.Unmarshal(line, &e) == nil {
				if follow && !e.Time.After(seen) {
					return
				}
				seen = e.Time
			}
			f(line)
		})
		if !follow || err != nil {
			for _, f := range end {
				f()
			}
			if err != nil && !errors.Is(err, admin.ErrNotRunning) {
				err = failed{err}
			}
			return err
		}
		time.Sleep(look) // the next master
	}
}

// notDone prints the last lines of the worker that could not be started, and returns the
// error.
func notDone(c *api.ChangeStatus, message string) error {
	for _, line := range c.Stderr {
		fmt.Fprintln(os.Stderr, "  "+line)
	}
	return errors.New(message)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
