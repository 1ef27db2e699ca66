package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"handoff/internal/deploy"
)

func deployCommand() *cobra.Command {
	var a after
	copy, build, check, stay := deploy.Copy{}, "", false, false
	c := &cobra.Command{
		Use:   "deploy [PROJECT] [VERSION]",
		Short: "Deploy a source as a new version, and make it live",
		Long: `Copy the current directory (or --from) into a deployment as a version, and make it live: a handoff that runs the
deployment reloads. If the version does not become ready, the previous one is live again, and the exit code is 1.

A version says what it runs by its .rackman.json, else by its handoff.toml, else by the start script of its package.json.
.git and the files that match .rackignore (with the rules of .gitignore) are not copied. An unfinished copy is never a version.
Without VERSION a name is generated that sorts by time.`,
		Example: `  cd ~/web && handoff deploy /srv/web
  handoff deploy /srv/web v12 --from build --run 'npm ci --omit=dev' --check
  handoff deploy /srv/web --link-from '#0'`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return change(args, 1, func(f *deploy.Folder, rest []string) error {
				if len(rest) > 0 {
					copy.Version = rest[0]
				}
				if copy.From == "" {
					copy.From = "."
				}
				copy.By = who()
				if copy.LinkFrom != "" && build != "" {
					return errors.New("--link-from and --run exclude each other: a build that writes in place would change the version that files are shared with")
				}
				if term.IsTerminal(int(os.Stderr.Fd())) {
					copy.Progress = progressBar(os.Stderr)
					defer fmt.Fprint(os.Stderr, "\r\x1b[K")
				}
				if build != "" || check {
					copy.Build = func(dir string) error { return prepare(f.Path, dir, build, check) }
				}
				version, err := f.Deploy(copy)
				if err != nil {
					return err
				}
				if stay {
					return a.say(f, version, 0, nil)
				}
				return a.liveVersion(f, version)
			})
		},
	}
	c.Flags().StringVar(&copy.From, "from", "", "the `source` (default: the current directory)")
	c.Flags().BoolVar(&copy.Force, "force", false, "replace an existing version of that name")
	c.Flags().StringVar(&copy.LinkFrom, "link-from", "", "hard-link files unchanged from this `version`")
	c.Flags().BoolVar(&copy.Outside, "unsafe-links", false, "copy symlinks that lead outside the source")
	c.Flags().StringVar(&build, "run", "", "run this shell `command` in the copy before it becomes a version: npm ci")
	c.Flags().BoolVar(&check, "check", false, "start it once, on free ports, before it becomes a version")
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

// prepare builds a copy in a deployment, and tries it.
func prepare(folder, dir, build string, check bool) error {
	if build != "" {
		cmd := exec.Command("/bin/sh", "-c", build)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("not registered as a version: --run %q: %w", build, err)
		}
	}
	if !check {
		return nil
	}
	return try(folder, dir)
}
