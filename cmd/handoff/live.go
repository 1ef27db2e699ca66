package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/deploy"
)

// after has the options of commands that change the live version.
type after struct {
	wait    bool
	timeout time.Duration
	asJSON  bool
}

func (a *after) flags(c *cobra.Command) {
	c.Flags().BoolVar(&a.wait, "wait", true, "if a handoff runs the deployment, wait until the version serves, and go back if it does not")
	durationFlag(c, &a.timeout, "timeout", "stop waiting after this time, and go back (default: no limit)")
	jsonFlag(c, &a.asJSON)
}

// live makes a version live by f, which gets a function that waits until it serves, and
// reports it.
func (a *after) live(f *deploy.Folder, by func(deploy.Serves) (version string, err error)) error {
	client := runs(f.Path)
	var was api.Status
	if client != nil && client.Get(api.StatusPath, &was) != nil {
		client = nil
	}
	took, serves := 0.0, deploy.Serves(nil)
	if client != nil && a.wait && was.State != api.StateStopping {
		serves = func() error {
			r, err := a.served(client, was)
			switch {
			case err != nil:
				return errors.New("not done in time")
			case r.Outcome != api.OutcomeServed:
				for _, line := range r.Stderr {
					fmt.Fprintln(os.Stderr, "  "+line)
				}
				return errors.New(r.Reason)
			}
			took = r.Seconds
			return nil
		}
	}
	version, err := by(serves)
	if err != nil {
		return err
	}
	return a.say(f, version, took, client)
}

// liveVersion is live for a known version.
func (a *after) liveVersion(f *deploy.Folder, version string) error {
	return a.live(f, func(serves deploy.Serves) (string, error) {
		return version, f.GoLive(version, who(), deploy.BySwitch, serves)
	})
}

// served waits for the reload that the master does when it notices the change. If it does
// not notice it, served requests the reload.
func (a *after) served(client *admin.Client, was api.Status) (r api.ReloadStatus, err error) {
	var before time.Time // a number can occur twice: a refused reload does not use its number
	if was.Reload != nil {
		before = was.Reload.Began
	}
	began, warned := time.Now(), false
	_, err = await(client, a.timeout, func(s api.Status) bool {
		if s.Reload == nil || !s.Reload.Began.After(before) {
			if !warned && time.Since(began) > seenWithin {
				warned = true
				client.Reload()
			}
			return false
		}
		r = *s.Reload
		return r.Outcome != api.OutcomeRunning
	})
	return r, err
}

// seenWithin is how long a master may take to notice that another version is live.
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

// runs finds the handoff that runs a deployment, nil if none does: this user's, root's, or
// one of the folder's owner. Root is answered by others as well, who could say anything.
func runs(folder string) *admin.Client {
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return nil
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil
	}
	believed := []int{0, os.Geteuid(), int(info.Sys().(*syscall.Stat_t).Uid)}
	for _, name := range admin.Names() {
		client, err := admin.Find(name)
		var c api.Config
		if err != nil || !slices.Contains(believed, client.UID) || client.Within(listWithin).Get(api.ConfigPath, &c) != nil || c.File == "" {
			continue
		}
		at, err := filepath.EvalSymlinks(filepath.Dir(c.File))
		if base := filepath.Base(c.File); err == nil && at == real && (base == deploy.File || base == deploy.VersionFile) {
			return client.Within(admin.Patience)
		}
	}
	return nil
}
