package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/deploy"
)

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
	var was api.Status
	if client != nil && client.Get(api.StatusPath, &was) != nil {
		client = nil
	}
	if err := f.Switch(version, who(), how); err != nil {
		return err
	}
	if client == nil || !a.wait || was.State == api.StateStopping {
		return a.say(f, version, 0, client)
	}
	r, err := a.served(client, was)
	if err == nil && r.Outcome == api.OutcomeServed {
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
func (a *after) served(client *admin.Client, was api.Status) (r api.ReloadStatus, err error) {
	var before time.Time // a number may come twice: one that was refused used none up
	if was.Reload != nil {
		before = was.Reload.Began
	}
	began, told := time.Now(), false
	_, err = await(client, a.timeout, func(s api.Status) bool {
		if s.Reload == nil || !s.Reload.Began.After(before) {
			if !told && time.Since(began) > seenWithin {
				told = true
				client.Reload()
			}
			return false
		}
		r = *s.Reload
		return r.Outcome != api.OutcomeRunning
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
		var c api.Config
		if err != nil || client.Get(api.ConfigPath, &c) != nil || c.File == "" {
			continue
		}
		at, err := filepath.EvalSymlinks(filepath.Dir(c.File))
		if base := filepath.Base(c.File); err == nil && at == real && (base == deploy.File || base == deploy.VersionFile) {
			return client
		}
	}
	return nil
}
