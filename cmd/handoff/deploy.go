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
				return a.liveVersion(f, version)
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
