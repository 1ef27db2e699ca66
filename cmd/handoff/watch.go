package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/events"
	"handoff/internal/watch"
	"handoff/master"
)

// watcher reloads when files change. Its methods are called by the master's loop,
// and before it.
type watcher struct {
	log  *slog.Logger
	c    *master.Control // nil: the master does not run yet
	cfg  watch.Config
	stop context.CancelFunc // nil: nothing is watched
}

// set applies another configuration.
func (w *watcher) set(cfg watch.Config) {
	ownOutput(&cfg)
	same := cfg.Equal(w.cfg)
	if w.cfg = cfg; w.c == nil || same && w.stop != nil {
		return
	}
	w.end()
	if len(cfg.Patterns) == 0 && len(cfg.Files) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	guard, control, log := &watch.Guard{}, *w.c, w.log
	go func() { // ends with ctx
		err := watch.Run(ctx, cfg, func(c watch.Changes) watch.Verdict {
			d := guard.Changed(time.Now(), c, lastReload(ctx, control))
			say(log, d)
			if d.Reload {
				log.Info("Files have changed", "event", events.ClusterChanged, "file", d.First, "files", d.Files)
				if _, err := control.Reload(ctx); err != nil && ctx.Err() == nil {
					log.Error("Cannot reload: "+err.Error(), "event", events.WatchFailed)
				}
			}
			return d.Verdict
		})
		if err != nil {
			log.Error(err.Error(), "event", events.WatchFailed)
		}
	}()
}

// say logs a decision against a reload.
func say(log *slog.Logger, d watch.Decision) {
	for _, name := range d.Omit {
		log.Warn("The workers write "+name+" after each start: it does not cause reloads any more. Write it elsewhere, or exclude it with --watch-ignore", "event", events.WatchOmitted, "file", name)
	}
	if d.Slowed {
		log.Warn(fmt.Sprintf("Reloads by --watch follow each other too quickly: the next is in %v. Does something that the service does change %s? Exclude it with --watch-ignore", d.Wait.Round(time.Second), d.First),
			"event", events.WatchSlowed, "file", d.First, "files", d.Files, "after_seconds", d.Wait.Round(time.Millisecond).Seconds())
	}
}

// lastReload is the last reload.
func lastReload(ctx context.Context, control master.Control) (last watch.Reload) {
	s, err := control.Status(ctx)
	if err != nil || s.Reload == nil {
		return last
	}
	if last.Began = s.Reload.Began; s.Reload.Outcome != api.OutcomeRunning {
		last.Ended = last.Began.Add(time.Duration(s.Reload.Seconds * float64(time.Second)))
	}
	return last
}

// ownOutput takes out the files that handoff's own output, and with it the workers', was
// redirected to.
func ownOutput(cfg *watch.Config) {
	for fd := 1; fd <= 2; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		cfg.Inodes = append(cfg.Inodes, watch.Inode{Dev: st.Dev, Ino: st.Ino})
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			cfg.Own = append(cfg.Own, watch.Written(name)...)
		}
	}
}

func (w *watcher) end() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}
