package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/deploy"
)

// lockTimeout is how long to wait for another process that changes a deployment.
const lockTimeout = 5 * time.Minute

// project finds the deployment among the arguments. What is left may be a version, and
// no more: an argument that is no deployment is not taken for one of them.
func project(args []string, maxRest int) (folder string, rest []string, err error) {
	here, err := os.Getwd()
	if err == nil {
		folder, rest, err = deploy.Locate(here, args)
	}
	if err == nil && len(rest) > maxRest {
		err = fmt.Errorf("%s %w: it has no %s; `handoff setup %[1]s` creates one", rest[0], deploy.ErrNone, deploy.File)
	}
	if err != nil {
		err = failed{err}
	}
	return folder, rest, err
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

// change opens the deployment of the arguments, and calls f to change it, with at most
// maxRest more of them.
func change(args []string, maxRest int, f func(folder *deploy.Folder, rest []string) error) error {
	path, rest, err := project(args, maxRest)
	if err != nil {
		return err
	}
	folder, err := deploy.Open(path, lockTimeout)
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

// inspect reads the deployment of the arguments.
func inspect(args []string) (path string, r *deploy.Record, err error) {
	if path, _, err = project(args, 0); err != nil {
		return "", nil, err
	}
	if r, err = deploy.Read(path); err != nil {
		return "", nil, failed{err}
	}
	return path, r, nil
}

// deployCommands are those of versions side by side, for handoff and for rackadmin.
func deployCommands() []*cobra.Command {
	return []*cobra.Command{setupCommand(), registerCommand(), deployCommand(), switchCommand(), rollbackCommand(), cleanCommand(), headCommand(), versionsCommand()}
}
