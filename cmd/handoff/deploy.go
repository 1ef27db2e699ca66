package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/admin"
	"handoff/internal/deploy"
	"handoff/master"
)

// lockPatience is how long somebody else's change of a deployment is waited for.
const lockPatience = 5 * time.Minute

// project tells the deployment from the other arguments, by RackMan's rule: the first
// argument if it is one, else the folder here, or one above it.
func project(args []string) (folder string, rest []string, err error) {
	here, err := os.Getwd()
	if err != nil {
		return "", nil, failed{err}
	}
	if len(args) > 0 && deploy.Is(args[0]) {
		folder, err := filepath.Abs(args[0])
		return folder, args[1:], err
	}
	if found, ok := deploy.Find(here); ok {
		return found, args, nil
	}
	if len(args) > 0 {
		return "", nil, failed{fmt.Errorf("%s %w: there is no %s in it; `rackadmin setup %s` makes one", args[0], deploy.ErrNone, deploy.File, args[0])}
	}
	return "", nil, failed{fmt.Errorf("%s %w: there is no %s here or above; `rackadmin setup` makes one", here, deploy.ErrNone, deploy.File)}
}

// who is the user, for the history.
func who() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// change opens the deployment of the arguments, and has f change it.
func change(args []string, f func(folder *deploy.Folder, rest []string) error) error {
	path, rest, err := project(args)
	if err != nil {
		return err
	}
	folder, err := deploy.Open(path, lockPatience)
	if err != nil {
		return failed{err}
	}
	defer folder.Close()
	if err := f(folder, rest); err != nil {
		var asked failed
		if errors.As(err, &asked) {
			return err
		}
		return failed{err}
	}
	return nil
}

// deployCommands are those of versions side by side, for handoff and for rackadmin.
func deployCommands() []*cobra.Command {
	return []*cobra.Command{setupCommand(), registerCommand(), deployCommand(), switchCommand(), rollbackCommand(), cleanCommand(), headCommand(), versionsCommand()}
}

func setupCommand() *cobra.Command {
	link, asJSON := "", false
	c := &cobra.Command{
		Use:     "setup [PROJECT]",
		Short:   "Make a folder a deployment, with versions side by side",
		Long:    `Make a folder a deployment: it gets a .rack.json. One that is stays as it is.`,
		Example: "  handoff setup /srv/web\n  rackadmin setup /srv/web -s public",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := "."
			if len(args) > 0 {
				path = args[0]
			}
			if err := deploy.Setup(path, link); err != nil {
				return failed{err}
			}
			if asJSON {
				at, err := filepath.Abs(path)
				if err != nil {
					return failed{err}
				}
				return printJSON(map[string]any{"schema": 1, "project": at})
			}
			return nil
		},
	}
	c.Flags().StringVarP(&link, "resources", "s", "", "link this `directory`: where the folder has one of its own, into each version; else the live version's into the folder")
	jsonFlag(c, &asJSON)
	return c
}

func registerCommand() *cobra.Command {
	var a after
	c := &cobra.Command{
		Use:     "register [PROJECT] VERSION",
		Short:   "Add a directory that is there to the list of versions",
		Long:    `Add a directory of the deployment, copied there by other means, to its versions. What is live does not change.`,
		Example: "  handoff register v7",
		Args:    cobra.RangeArgs(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, func(f *deploy.Folder, rest []string) error {
				version := ""
				if len(rest) > 0 {
					version = rest[0]
				}
				if err := f.Register(version); err != nil {
					return err
				}
				return a.say(f, version, 0, nil)
			})
		},
	}
	jsonFlag(c, &a.asJSON)
	return c
}

// after is what follows a change of what is live.
type after struct {
	wait    bool
	timeout time.Duration
	asJSON  bool
}

func (a *after) flags(c *cobra.Command) {
	c.Flags().BoolVar(&a.wait, "wait", true, "where a handoff runs the folder, wait until the version serves, and go back if it does not; --wait=false does not")
	durationFlag(c, &a.timeout, "timeout", "give up waiting after so long, and go back (default: as long as it takes)")
	jsonFlag(c, &a.asJSON)
}

// live makes a version live, and puts back what was if it does not come to serve.
func (a *after) live(f *deploy.Folder, version, how string) error {
	before := f.Head
	client := runs(f.Path)
	var was master.Status
	if client != nil && client.Get("/v1/status", &was) != nil {
		client = nil
	}
	if err := f.Switch(version, who(), how); err != nil {
		return err
	}
	if client == nil || !a.wait || was.State == "stopping" {
		return a.say(f, version, 0, client)
	}
	r, err := a.served(client, was)
	if err == nil && r.Outcome == "served" {
		return a.say(f, version, r.Seconds, client)
	}
	why := "not done in time"
	if err == nil {
		why = r.Reason
		for _, line := range r.Stderr {
			fmt.Fprintln(os.Stderr, "  "+line)
		}
	}
	if before == version {
		if undone, uerr := f.Unswap(version); uerr != nil || undone {
			if uerr == nil {
				return fmt.Errorf("the new copy of %s does not serve, the one before is there again: %s", version, why)
			}
			why += fmt.Sprintf(" (and the copy before cannot be put back: %v)", uerr)
		}
	}
	if before == "" || before == version {
		return fmt.Errorf("%s does not serve: %s", version, why)
	}
	if err := f.Switch(before, who(), "rollback"); err != nil {
		return fmt.Errorf("%s does not serve: %s; and cannot go back to %s: %w", version, why, before, err)
	}
	return fmt.Errorf("%s does not serve, %s is live again: %s", version, before, why)
}

// served waits for the reload that the master does when it sees the change; one that
// does not see it is told.
func (a *after) served(client *admin.Client, was master.Status) (r master.ReloadStatus, err error) {
	var before time.Time // a number may come twice: one that was refused used none up
	if was.Reload != nil {
		before = was.Reload.Began
	}
	began, told := time.Now(), false
	_, err = await(client, a.timeout, func(s master.Status) bool {
		if s.Reload == nil || !s.Reload.Began.After(before) {
			if !told && time.Since(began) > seenWithin {
				told = true
				var asked struct{ Generation int }
				client.Post("/v1/reload", &asked)
			}
			return false
		}
		r = *s.Reload
		return r.Outcome != "running"
	})
	return r, err
}

// seenWithin is how long a master may take to see by itself that another version is
// live.
const seenWithin = time.Second

func (a *after) say(f *deploy.Folder, version string, took float64, client *admin.Client) error {
	if a.asJSON {
		name := ""
		if client != nil {
			name = client.Name
		}
		return printJSON(map[string]any{"schema": 1, "project": f.Path, "version": version, "service": name, "seconds": took})
	}
	fmt.Println(version)
	return nil
}

// runs finds the handoff that runs a deployment, nil if none does.
func runs(folder string) *admin.Client {
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return nil
	}
	for _, name := range admin.Names() {
		client, err := admin.Find(name)
		var c struct{ File string }
		if err != nil || client.Get("/v1/config", &c) != nil || c.File == "" {
			continue
		}
		at, err := filepath.EvalSymlinks(filepath.Dir(c.File))
		if base := filepath.Base(c.File); err == nil && at == real && (base == deploy.File || base == deploy.VersionFile) {
			return client
		}
	}
	return nil
}

func deployCommand() *cobra.Command {
	var a after
	copy, build, check, stay := deploy.Copy{}, "", false, false
	c := &cobra.Command{
		Use:   "deploy [PROJECT] [VERSION]",
		Short: "Copy a source into the deployment as a version, and make it live",
		Long: `Copy the folder here (or --from) into a deployment as a version, and make it live: a handoff that runs the
deployment reloads. A version that does not come to serve does not stay live, and the exit code is 1.

Left out are .git and what .rackignore says, by the rules of .gitignore. A copy that is not finished is never a version.
Without VERSION a name is made up, which sorts by time.`,
		Example: `  cd ~/web && handoff deploy /srv/web
  handoff deploy /srv/web v12 --from build --run 'npm ci --omit=dev' --check
  handoff deploy /srv/web --link-from '#0'`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, func(f *deploy.Folder, rest []string) error {
				if len(rest) > 0 {
					copy.Version = rest[0]
				}
				if copy.From == "" {
					copy.From = "."
				}
				copy.By = who()
				if copy.LinkFrom != "" && build != "" {
					return errors.New("--link-from and --run: a build that writes in place would write into the version that files are shared with; give one of them")
				}
				if term.IsTerminal(int(os.Stderr.Fd())) {
					copy.Progress = progressBar(os.Stderr)
					defer fmt.Fprint(os.Stderr, "\r\x1b[K")
				}
				if build != "" || check {
					copy.Build = func(dir string) error { return prepare(dir, build, check) }
				}
				version, err := f.Deploy(copy)
				if err != nil {
					return err
				}
				if stay {
					return a.say(f, version, 0, nil)
				}
				return a.live(f, version, "switch")
			})
		},
	}
	c.Flags().StringVar(&copy.From, "from", "", "the `source` (default: here)")
	c.Flags().BoolVar(&copy.Force, "force", false, "swap a version of that name for the new copy")
	c.Flags().StringVar(&copy.LinkFrom, "link-from", "", "share unchanged files with this `version`, by hard links")
	c.Flags().BoolVar(&copy.Outside, "unsafe-links", false, "copy symlinks that lead out of the source")
	c.Flags().StringVar(&build, "run", "", "run this `command` of the shell in the copy before it is a version: npm ci")
	c.Flags().BoolVar(&check, "check", false, "start it once, on ports of its own, before it is a version")
	c.Flags().BoolVar(&stay, "no-switch", false, "do not make it live")
	a.flags(c)
	return c
}

// progressBar draws how far a copy is, ten times a second at most.
func progressBar(out io.Writer) func(files, of int, bytes int64) {
	const width = 30
	last := time.Time{}
	return func(files, of int, bytes int64) {
		if time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		done := min(files*width/max(of, 1), width)
		fmt.Fprintf(out, "\r[%s%s] %d of %d files, %s ", strings.Repeat("=", done), strings.Repeat(" ", width-done), files, of, size(bytes))
	}
}

// prepare builds a copy, and tries it.
func prepare(dir, build string, check bool) error {
	if build != "" {
		cmd := exec.Command("/bin/sh", "-c", build)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("it is no version: --run %q: %w", build, err)
		}
	}
	if !check {
		return nil
	}
	return try(dir)
}

// tryPatience is how long a version may take to start, where its own ready timeout does
// not say less.
const tryPatience = 5 * time.Minute

// try starts what is in a folder once, where nobody else is.
func try(dir string) error {
	path, err := binary()
	if err != nil {
		return err
	}
	run, err := os.MkdirTemp("", "handoff-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(run)
	args := []string{"run", "--scratch", "--name", "try", "--log", "json", "--max-failures", "1", "--drain-timeout", "5s", dir}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HANDOFF_RUNTIME_DIR="+run)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	late := time.AfterFunc(tryPatience, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer late.Stop()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if _, ok := <-stop; ok {
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	defer func() { signal.Stop(stop); close(stop) }()
	serves, why := false, ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Event, Reason, Stderr, Msg string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Event == "" {
			if !serves {
				why = lines.Text()
			}
			continue
		}
		switch e.Event {
		case "cluster.started":
			serves = true
			cmd.Process.Signal(syscall.SIGTERM)
		case "cluster.failed":
			if why = e.Reason; why == "" {
				why = e.Msg
			}
			for line := range strings.Lines(e.Stderr) {
				fmt.Fprintln(os.Stderr, "  "+strings.TrimRight(line, "\n"))
			}
		}
	}
	cmd.Wait()
	if !serves {
		return fmt.Errorf("it is no version: it does not start (--check): %s", why)
	}
	return nil
}

func switchCommand() *cobra.Command {
	var a after
	c := &cobra.Command{
		Use:     "switch [PROJECT] VERSION",
		Aliases: []string{"checkout"},
		Short:   "Make another version live",
		Long: `Make another version live: a handoff that runs the deployment sees it at once, and reloads. A version that does not
come to serve does not stay live, and the exit code is 1.

VERSION is a name, #N (the N-th of handoff versions, from 0), or ^N (N before the live one in that list; ^-1 is the one after).`,
		Example: "  handoff switch v12\n  handoff switch /srv/web '#0'\n  rackadmin checkout '^1'",
		Args:    cobra.RangeArgs(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, func(f *deploy.Folder, rest []string) error {
				ref := ""
				if len(rest) > 0 {
					ref = rest[0]
				}
				version, err := f.Resolve(ref)
				if err != nil {
					return err
				}
				return a.live(f, version, "switch")
			})
		},
	}
	a.flags(c)
	return c
}

func rollbackCommand() *cobra.Command {
	var a after
	steps := 1
	c := &cobra.Command{
		Use:     "rollback [PROJECT]",
		Short:   "Make the version live that was live before",
		Long:    `Make the version live that was live before this one, by the history; once more goes further back.`,
		Example: "  handoff rollback\n  handoff rollback /srv/web --steps 2",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, func(f *deploy.Folder, _ []string) error {
				version, err := f.Before(steps)
				if err != nil {
					return err
				}
				return a.live(f, version, "rollback")
			})
		},
	}
	c.Flags().IntVar(&steps, "steps", 1, "so many `steps` back")
	a.flags(c)
	return c
}

func cleanCommand() *cobra.Command {
	var what deploy.Clean
	asJSON := false
	c := &cobra.Command{
		Use:   "clean [PROJECT] [VERSION]",
		Short: "Remove old versions, and what deploy has left unfinished",
		Long: `Remove versions: those before VERSION in the list, all but the newest (--keep), those that are old (--older-than).
Never the live one, nor the one that was live before it, nor anything that is no version.
Without any of these, only what an interrupted deploy has left behind goes.`,
		Example: "  handoff clean --keep 5\n  handoff clean /srv/web v7 --dry-run\n  handoff clean --older-than 720h",
		Args:    cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, func(f *deploy.Folder, rest []string) error {
				if len(rest) > 0 {
					version, err := f.Resolve(rest[0])
					if err != nil {
						return err
					}
					what.Until = version
				}
				names, err := f.Clean(what)
				if asJSON && err == nil {
					return printJSON(map[string]any{"schema": 1, "project": f.Path, "removed": append([]string{}, names...), "dry_run": what.Dry})
				}
				for _, name := range names {
					fmt.Println(name)
				}
				return err
			})
		},
	}
	c.Flags().IntVar(&what.Keep, "keep", 0, "keep so `many` of the newest")
	durationFlag(c, &what.OlderThan, "older-than", "remove those that were deployed longer ago")
	c.Flags().BoolVar(&what.Dry, "dry-run", false, "only print what would go")
	jsonFlag(c, &asJSON)
	return c
}

// inspect reads the deployment of the arguments.
func inspect(args []string) (path string, r *deploy.Record, err error) {
	if path, _, err = project(args); err != nil {
		return "", nil, err
	}
	if r, err = deploy.Read(path); err != nil {
		return "", nil, failed{err}
	}
	return path, r, nil
}

func headCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "head [PROJECT]",
		Short:   "Print the version that is live",
		Long:    `Print the version that is live; nothing if none is.`,
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

func versionsCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "versions [PROJECT]",
		Aliases: []string{"list"},
		Short:   "List the versions of a deployment",
		Long:    `List the versions, oldest first, with when and by whom they were deployed; * is live, - was live before.`,
		Example: "  handoff versions\n  rackadmin list /srv/web\n  handoff versions --json | jq -r '.versions[] | select(.live) | .version'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, r, err := inspect(args)
			if err != nil {
				return err
			}
			before, err := r.Before(1)
			if err != nil {
				before = ""
			}
			type row struct {
				Version  string     `json:"version"`
				Live     bool       `json:"live"`
				Previous bool       `json:"previous"`
				At       *time.Time `json:"deployed_at,omitempty"`
				By       string     `json:"by,omitempty"`
				From     string     `json:"from,omitempty"`
			}
			rows := []row{}
			for _, v := range r.Versions {
				about := r.Deployed[v]
				x := row{Version: v, Live: v == r.Head, Previous: v == before && v != r.Head, By: about.By, From: about.From}
				if !about.At.IsZero() {
					x.At = &about.At
				}
				rows = append(rows, x)
			}
			if asJSON {
				return printJSON(map[string]any{"schema": 1, "project": path, "head": r.Head, "versions": rows})
			}
			if !term.IsTerminal(int(os.Stdout.Fd())) { // as RackMan prints it, for scripts
				for _, x := range rows {
					fmt.Println(x.Version)
				}
				return nil
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			for _, x := range rows {
				mark, at := " ", ""
				switch {
				case x.Live:
					mark = "*"
				case x.Previous:
					mark = "-"
				}
				if x.At != nil {
					at = x.At.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\n", mark, x.Version, at, x.By, x.From)
			}
			return t.Flush()
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
