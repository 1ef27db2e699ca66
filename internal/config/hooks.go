package config

import (
	"fmt"
	"slices"
	"strings"

	"handoff/internal/events"
)

// HookEvents are the events for which there can be hooks, in chronological order.
var HookEvents = []string{
	events.ClusterStarted, events.ClusterReloading, events.ClusterReloaded, events.ClusterFailed, events.ClusterChanged, events.ClusterShutdown, events.ClusterStopped,
	events.WorkerStarted, events.WorkerReady, events.WorkerDraining, events.WorkerShutdown, events.WorkerCrashed,
	BeforeReload, BeforeReady,
}

// The hooks that can refuse.
const (
	BeforeReload = "before_reload"
	BeforeReady  = "before_ready"
)

// HookCommands returns the commands of each event, in their order.
func (r *Run) HookCommands() (map[string][]string, error) {
	hooks := map[string][]string{}
	for _, text := range r.Hooks {
		event, command, ok := strings.Cut(text, "=")
		event = strings.ReplaceAll(event, "before-", "before_")
		if !ok || strings.TrimSpace(command) == "" {
			return nil, fmt.Errorf("invalid --hook %q: want EVENT=COMMAND, like worker.crashed=./notify.sh", event)
		}
		if !slices.Contains(HookEvents, event) {
			return nil, fmt.Errorf("invalid --hook: unknown event %q%s", event, nearest(event, HookEvents, "; the events are "+strings.Join(HookEvents, ", ")))
		}
		hooks[event] = append(hooks[event], command)
	}
	return hooks, nil
}
