package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"handoff/internal/deploy"
	"handoff/internal/events"
)

// tryTimeout is how long a version may take to start, unless its own ready timeout is
// shorter.
const tryTimeout = 5 * time.Minute

// try starts a copy in a deployment once, like a version, on unused addresses.
func try(folder, dir string) error {
	path, err := binary()
	if err != nil {
		return err
	}
	run, err := os.MkdirTemp("", "handoff-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(run)
	args := []string{"run", "--scratch", "--name", "try", "--log", "json", "--max-failures", "1", "--drain-timeout", "5s",
		"-c", filepath.Join(folder, deploy.File), "--rack-version", filepath.Base(dir)}
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
	late := time.AfterFunc(tryTimeout, func() { cmd.Process.Signal(syscall.SIGTERM) })
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
		case events.ClusterStarted:
			serves = true
			cmd.Process.Signal(syscall.SIGTERM)
		case events.ClusterFailed:
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
		return fmt.Errorf("not registered as a version: it does not start (--check): %s", why)
	}
	return nil
}
