package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"handoff/internal/admin"
	"handoff/internal/capture"
	"handoff/internal/config"
	"handoff/master"
)

// look is how often a command looks whether what it waits for has come.
const look = 50 * time.Millisecond

// find is the client of a command's NAME, if it has one.
func find(args []string) (*admin.Client, error) {
	if len(args) > 0 {
		return admin.Find(args[0])
	}
	return admin.Find("")
}

// printJSON prints an answer for machines. What has no schema of its own gets one.
func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func reloadCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "reload [NAME]",
		Short: "Put new code into service, and say whether it serves",
		Long: `Put the code that is on disk now into service, as USR2 does, and wait until it serves.

Exit code: 0 the new generation serves; 1 it was given up, the old one serves on, and the reason
is printed with the last lines of the worker that failed; 3 handoff is not running.
A reload during a reload is no error: the newest wins, and both commands wait for it.`,
		Example: `  handoff reload
  handoff reload web --timeout 2m
  handoff reload --no-wait`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			var asked struct{ Generation int }
			if err := client.Post("/v1/reload", &asked); err != nil {
				return failed{err}
			}
			if noWait {
				if asJSON {
					return printJSON(map[string]any{"schema": 1, "name": client.Name, "generation": asked.Generation, "outcome": "running"})
				}
				fmt.Printf("%s: generation %d starts\n", client.Name, asked.Generation)
				return nil
			}
			told := 0
			var r *master.ReloadStatus
			s, err := await(client, timeout, func(s master.Status) bool {
				if r = s.Reload; !asJSON && told != s.Wanted && s.Wanted >= asked.Generation {
					told = s.Wanted
					fmt.Printf("%s: generation %d → %d, %d slots\n", client.Name, s.Generation, s.Wanted, s.Slots)
				}
				return r != nil && r.Generation >= asked.Generation && r.Outcome != "running"
			})
			if err != nil {
				return err
			}
			if asJSON {
				printJSON(map[string]any{"schema": 1, "name": client.Name, "generation": r.Generation, "outcome": r.Outcome, "reason": r.Reason, "stderr": r.Stderr, "seconds": r.Seconds, "serving": s.Generation})
			}
			if r.Outcome == "served" {
				if !asJSON {
					fmt.Printf("%s: generation %d serves, after %v\n", client.Name, r.Generation, seconds(r.Seconds))
				}
				return nil
			}
			if !asJSON {
				for _, line := range r.Stderr {
					fmt.Fprintln(os.Stderr, "  "+line)
				}
				fmt.Fprintf(os.Stderr, "handoff: generation %d was given up after %v: %s; generation %d serves on\n", r.Generation, seconds(r.Seconds), r.Reason, s.Generation)
			}
			return failed{nil}
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it serves")
	durationFlag(c, &timeout, "timeout", "give up waiting after so long; the reload goes on (default: as long as it takes)")
	return c
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}

func durationFlag(c *cobra.Command, p *time.Duration, name, usage string) {
	c.Flags().Func(name, usage, func(s string) (err error) {
		*p, err = config.ParseDuration(s)
		return err
	})
}

// await asks for the status until ok likes it. timeout 0 is none. Between two
// masters nobody answers, for as long as the keeper takes.
func await(client *admin.Client, timeout time.Duration, ok func(master.Status) bool) (s master.Status, err error) {
	began, heard := time.Now(), time.Now()
	for {
		s = master.Status{}
		err := client.Get("/v1/status", &s)
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

// awaitEnd waits until the process is gone, for as long as timeout says (0: for
// ever).
func awaitEnd(pidfd int, timeout time.Duration) bool {
	patience := -1
	if timeout > 0 {
		patience = int(timeout.Milliseconds())
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, patience)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// notAFlag is put before an argument like -1, which is a number.
const notAFlag = "by:"

// numbers makes arguments of `handoff scale` such that -1 is no flag.
func numbers(args []string) []string {
	args = slices.Clone(args)
	if len(args) > 0 && args[0] == "scale" {
		for i, a := range args {
			if _, err := strconv.Atoi(a); err == nil && a[0] == '-' {
				args[i] = notAFlag + a
			}
		}
	}
	return args
}

func scaleCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "scale N|+N|-N [NAME]",
		Short: "Change the number of workers",
		Long: `Change the number of workers, and wait until they serve. Nothing is lost either way: who goes, drains.
Exit code: 0 done; 1 refused; 3 handoff is not running.`,
		Example: `  handoff scale 8
  handoff scale +2 web
  handoff scale -1`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			args[0] = strings.TrimPrefix(args[0], notAFlag)
			if _, err := strconv.Atoi(args[0]); err != nil {
				return fmt.Errorf("cannot scale to %q: want a number of workers, or how many more or fewer: 8, +2, -1", args[0])
			}
			client, err := find(args[1:])
			if err != nil {
				return err
			}
			query := "workers="
			if args[0][0] == '+' || args[0][0] == '-' {
				query = "by="
			}
			var done struct{ Workers int }
			if err := client.Post("/v1/scale?"+query+url.QueryEscape(args[0]), &done); err != nil {
				return failed{err}
			}
			if !noWait {
				s, err := await(client, timeout, func(s master.Status) bool {
					return s.Slots != done.Workers || s.Ready >= s.Slots || s.State == "stopping"
				})
				if err != nil {
					return err
				}
				if s.State == "stopping" || s.Slots != done.Workers {
					return failed{fmt.Errorf("%s: overtaken: it is %s, with %d workers", client.Name, s.State, s.Slots)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "workers": done.Workers})
			}
			fmt.Printf("%s: %d workers\n", client.Name, done.Workers)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until they serve")
	durationFlag(c, &timeout, "timeout", "give up waiting after so long (default: as long as it takes)")
	return c
}

func stopCommand() *cobra.Command {
	asJSON, now, noWait, timeout := false, false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "stop [NAME]",
		Short: "Stop with drain, and wait for the end",
		Long: `Stop: workers drain, within --drain-timeout of handoff run. Waits until all are gone.
Exit code: 0 stopped; 1 not within --timeout; 3 handoff is not running.`,
		Example: `  handoff stop
  handoff stop web --now`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			// The keeper is the service: when it is gone, it has stopped.
			var before master.Status
			if err := client.Get("/v1/status", &before); err != nil {
				return err
			}
			pidfd, err := unix.PidfdOpen(before.PID, 0)
			if err != nil {
				return failed{fmt.Errorf("cannot wait for process %d: %w", before.PID, err)}
			}
			defer unix.Close(pidfd)
			path := "/v1/stop"
			if now {
				path += "?now=1"
			}
			var done struct{ Stopping bool }
			if err := client.Post(path, &done); err != nil {
				return failed{err}
			}
			what := "stops"
			if !noWait {
				what = "stopped"
				if !awaitEnd(pidfd, timeout) {
					return failed{fmt.Errorf("%s: not stopped within %v; it goes on stopping", client.Name, timeout)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "state": what})
			}
			fmt.Printf("%s: %s\n", client.Name, what)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&now, "now", false, "kill the workers, without drain")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the end")
	durationFlag(c, &timeout, "timeout", "give up waiting after so long (default: as long as it takes)")
	return c
}

func restartCommand() *cobra.Command {
	asJSON, noWait, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "restart SLOT [NAME]",
		Short: "Replace the worker of one slot",
		Long: `Replace the worker of a slot, with the code of its generation; the old one drains when the new one serves.
(New code is put into service by reload.) Exit code: 0 replaced; 1 refused; 3 handoff is not running.`,
		Example: `  handoff restart 2
  handoff restart 0 web`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			slot, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("cannot restart %q: want the number of a slot, see `handoff status`", args[0])
			}
			client, err := find(args[1:])
			if err != nil {
				return err
			}
			var old struct{ Worker int }
			if err := client.Post(fmt.Sprintf("/v1/slots/%d/restart", slot), &old); err != nil {
				return failed{err}
			}
			pid := 0
			if !noWait {
				s, err := await(client, timeout, func(s master.Status) bool {
					for _, w := range s.Workers {
						if w.Slot == slot && w.Worker > old.Worker && w.Steered {
							pid = w.PID
							return true
						}
					}
					return slot >= s.Slots || s.State == "stopping"
				})
				if err != nil {
					return err
				}
				if pid == 0 {
					return failed{fmt.Errorf("%s: overtaken: it is %s, with %d workers", client.Name, s.State, s.Slots)}
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "name": client.Name, "slot": slot, "pid": pid})
			}
			if pid == 0 {
				fmt.Printf("%s: slot %d is replaced\n", client.Name, slot)
			} else {
				fmt.Printf("%s: slot %d serves, pid %d\n", client.Name, slot, pid)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the new one serves")
	durationFlag(c, &timeout, "timeout", "give up waiting after so long (default: as long as it takes)")
	return c
}

func waitCommand() *cobra.Command {
	asJSON, ready, timeout := false, false, time.Duration(0)
	c := &cobra.Command{
		Use:   "wait [NAME]",
		Short: "Wait until every slot is served",
		Long: `Wait until a service serves every slot, also if it is not running yet.
Exit code: 0 it serves; 1 not within --timeout.`,
		Example: `  handoff wait --ready --timeout 30s
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
					var s master.Status
					if err = client.Get("/v1/status", &s); err == nil && s.Ready >= s.Slots && s.Generation > 0 && s.State != "stopping" {
						if asJSON {
							return printJSON(s)
						}
						fmt.Printf("%s: %d of %d slots ready\n", client.Name, s.Ready, s.Slots)
						return nil
					}
					if err == nil {
						err = fmt.Errorf("%s: %s, %d of %d slots ready", client.Name, s.State, s.Ready, s.Slots)
					}
				}
				if errors.Is(err, admin.ErrWhich) {
					return err
				}
				if timeout > 0 && time.Since(began) > timeout {
					return failed{fmt.Errorf("not ready within %v: %w", timeout, plainly(err))}
				}
				time.Sleep(look)
			}
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON, when it serves")
	c.Flags().BoolVar(&ready, "ready", true, "until every slot is served")
	durationFlag(c, &timeout, "timeout", "give up after so long (default: never)")
	return c
}

// plainly keeps an error's words and loses what it is, for the exit code.
func plainly(err error) error { return errors.New(err.Error()) }

func eventsCommand() *cobra.Command {
	asJSON, follow, last := false, false, 20
	c := &cobra.Command{
		Use:   "events [NAME]",
		Short: "Show what has happened, and what happens",
		Long: `Show the last events of a running handoff, and with --follow those that come, also of masters that come after it.
They are the lines of its log; the names are stable.`,
		Example: `  handoff events
  handoff events web --follow --json | jq -r 'select(.event=="worker.crashed") | .msg'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return follows(args, "/v1/events", last, follow, func(line []byte) {
				if asJSON {
					os.Stdout.Write(append(line, '\n'))
					return
				}
				printEvent(os.Stdout, line)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line an event")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come")
	c.Flags().IntVarP(&last, "last", "n", last, "how `many` to begin with")
	return c
}

func logsCommand() *cobra.Command {
	asJSON, follow, last, slot := false, false, 100, -1
	c := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Show what workers write, where it is captured",
		Long: `Show the last lines that the workers of a running handoff have written, and with --follow those that come.
It needs handoff run --capture prefix, json or files (or --log-prefix); without, they go where handoff's own output goes.`,
		Example: `  handoff logs -f
  handoff logs web --slot 0 --last 20`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			n := last
			if slot >= 0 {
				n = 1 << 20 // of which the last are chosen here
			}
			var kept [][]byte
			show := func(line []byte) {
				if asJSON {
					os.Stdout.Write(append(line, '\n'))
					return
				}
				var l capture.Line
				if json.Unmarshal(line, &l) == nil {
					fmt.Printf("%s.%d | %s\n", l.Name, l.Slot, l.Line)
				}
			}
			return follows(args, "/v1/logs", n, follow, func(line []byte) {
				var l capture.Line
				if json.Unmarshal(line, &l) != nil || slot >= 0 && l.Slot != slot {
					return
				}
				if slot < 0 || follow {
					show(line)
					return
				}
				if kept = append(kept, bytes.Clone(line)); len(kept) > last {
					kept = kept[1:]
				}
			}, func() {
				for _, line := range kept {
					show(line)
				}
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line each")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come")
	c.Flags().IntVarP(&last, "last", "n", last, "how `many` lines to begin with")
	c.Flags().IntVar(&slot, "slot", slot, "of this `slot` alone")
	return c
}

// follows streams lines to f, and with follow goes on with those of the next master.
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
	for n := last; ; n = 1 << 20 { // of the next master all that is new
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

func configCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "config [NAME]",
		Short: "Show what a running service runs by",
		Long: `Show every key of handoff.toml with the value that is in effect: of flags, environment and file together.
Of the workers' environment the names are shown, not the values.`,
		Example: `  handoff config
  handoff config web --json | jq -r .drain_timeout`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			client, err := find(args)
			if err != nil {
				return err
			}
			var all map[string]any
			if err := client.Get("/v1/config", &all); err != nil {
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

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// printEvent prints an event for people.
func printEvent(out io.Writer, line []byte) {
	var e struct {
		Time             time.Time
		Level, Msg       string
		Slot, PID        *int
		Generation       int
		Reason, Stderr   string
		Address, Version string
	}
	if json.Unmarshal(line, &e) != nil {
		return
	}
	var about []string
	add := func(name string, v any) { about = append(about, fmt.Sprintf("%s=%v", name, v)) }
	if e.Slot != nil {
		add("slot", *e.Slot)
	}
	if e.PID != nil {
		add("pid", *e.PID)
	}
	if e.Generation > 0 {
		add("generation", e.Generation)
	}
	if e.Reason != "" {
		add("reason", strconv.Quote(e.Reason))
	}
	fmt.Fprintf(out, "%s %-5s %s  %s\n", e.Time.Local().Format(time.DateTime), e.Level, e.Msg, strings.Join(about, " "))
	for l := range strings.Lines(e.Stderr) {
		fmt.Fprintln(out, "    "+strings.TrimRight(l, "\n"))
	}
}

func listCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"ps", "list"},
		Short:   "List what runs of this user",
		Long:    `List every handoff of this user that runs here. Exit code 0, also if none does.`,
		Example: `  handoff ls
  handoff ls --json | jq -r '.services[].name'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list := []master.Status{}
			for _, name := range admin.Names() {
				client, err := admin.Find(name)
				var s master.Status
				if err == nil && client.Get("/v1/status", &s) == nil {
					list = append(list, s)
				}
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "services": list})
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tSTATE\tREADY\tGENERATION\tPID\tUP\tLISTENS ON")
			for _, s := range list {
				var at []string
				for _, a := range s.Addresses {
					at = append(at, a.Address)
				}
				fmt.Fprintf(t, "%s\t%s\t%d/%d\t%d\t%d\t%s\t%s\n", s.Name, s.State, s.Ready, s.Slots, s.Generation, s.PID, age(time.Since(s.Started)), strings.Join(at, " "))
			}
			return t.Flush()
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
