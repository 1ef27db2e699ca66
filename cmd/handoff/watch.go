package main

import (
	"context"
	"log/slog"
	"slices"

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

// set watches by another configuration from now on.
func (w *watcher) set(cfg watch.Config) {
	same := cfg.Dir == w.cfg.Dir && slices.Equal(cfg.Patterns, w.cfg.Patterns) && slices.Equal(cfg.Ignore, w.cfg.Ignore) &&
		cfg.Delay == w.cfg.Delay && slices.Equal(cfg.Files, w.cfg.Files)
	if w.cfg = cfg; w.c == nil || same && w.stop != nil {
		return
	}
	w.end()
	if len(cfg.Patterns) == 0 && len(cfg.Files) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	control, log := *w.c, w.log
	go func() { // ends with ctx
		err := watch.Run(ctx, cfg, func(first string, n int) {
			log.Info("Files have changed", "event", events.ClusterChanged, "file", first, "files", n)
			if _, err := control.Reload(ctx); err != nil && ctx.Err() == nil {
				log.Error("Cannot reload: "+err.Error(), "event", events.WatchFailed)
			}
		})
		if err != nil {
			log.Error(err.Error(), "event", events.WatchFailed)
		}
	}()
}

func (w *watcher) end() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}
