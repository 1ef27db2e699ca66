// Package metrics writes what a master measures in Prometheus's text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
package metrics

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"handoff/internal/api"
)

// Write writes all families. rss and cpu of the workers are those of the status.
func Write(out io.Writer, m api.Metrics, fds int) error {
	w := writer{bufio.NewWriter(out)}
	s, c := m.Status, m.Counters
	w.family("handoff_build_info", "gauge", "A constant 1, with the version of handoff.")
	w.sample("handoff_build_info", 1, "version", s.Version, "goversion", runtime.Version())
	w.family("handoff_up", "gauge", "Whether every slot is served.")
	w.sample("handoff_up", truth(s.Ready >= s.Slots && s.Slots > 0 && s.Generation > 0), "service", s.Name)
	w.family("handoff_generation", "gauge", "The generation that serves.")
	w.sample("handoff_generation", float64(s.Generation), "service", s.Name)
	w.family("handoff_slots", "gauge", "The number of workers that are wanted.")
	w.sample("handoff_slots", float64(s.Slots), "service", s.Name)
	w.family("handoff_slots_ready", "gauge", "Slots that are served.")
	w.sample("handoff_slots_ready", float64(s.Ready), "service", s.Name)
	w.family("handoff_start_time_seconds", "gauge", "When the service was started, in Unix time.")
	w.sample("handoff_start_time_seconds", float64(s.Started.UnixMilli())/1000, "service", s.Name)

	phases := map[string]int{"starting": 0, "serving": 0, "quieting": 0, "draining": 0}
	for _, x := range s.Workers {
		phases[x.Phase]++
	}
	w.family("handoff_workers", "gauge", "Workers by phase.")
	for _, p := range slices.Sorted(maps.Keys(phases)) {
		w.sample("handoff_workers", float64(phases[p]), "phase", p)
	}
	// One value a slot: of the worker that connections go to.
	per := func(name, kind, help string, value func(api.WorkerStatus) float64) {
		w.family(name, kind, help)
		for _, x := range s.Workers {
			if x.Steered {
				w.sample(name, value(x), "slot", strconv.Itoa(x.Slot))
			}
		}
	}
	per("handoff_slot_ready", "gauge", "Whether the slot is served.", func(x api.WorkerStatus) float64 { return truth(x.Phase == "serving") })
	per("handoff_slot_generation", "gauge", "The generation of the worker that serves the slot.", func(x api.WorkerStatus) float64 { return float64(x.Generation) })
	per("handoff_slot_queue_length", "gauge", "Connections that wait in the accept queue of the slot's worker.", func(x api.WorkerStatus) float64 { return float64(x.Queue) })
	per("handoff_slot_resident_memory_bytes", "gauge", "Resident memory of the process group of the slot's worker.", func(x api.WorkerStatus) float64 { return float64(x.RSS) })
	per("handoff_slot_cpu_seconds", "gauge", "Processor time that the process group of the slot's worker has used.", func(x api.WorkerStatus) float64 { return x.CPU })
	w.family("handoff_listen_queue_length", "gauge", "Connections that nobody has accepted, of all sockets of an address.")
	for _, a := range s.Addresses {
		w.sample("handoff_listen_queue_length", float64(a.Queue), "address", a.Address)
	}
	w.family("handoff_listen_queue_length_max", "gauge", "The longest accept queue of one socket that was seen.")
	w.sample("handoff_listen_queue_length_max", float64(c.MaxQueue))
	w.family("handoff_open_fds", "gauge", "Open file descriptors of the master.")
	w.sample("handoff_open_fds", float64(fds))

	w.counters("handoff_reloads_total", "Reloads by their outcome.", "outcome", c.Reloads, "served", "failed")
	w.counters("handoff_worker_restarts_total", "Workers that ended and were not drained for a reload, by the reason.", "reason", c.Restarts, "crashed", "asked", "hung", "stalled", "recycled")
	w.counter("handoff_worker_stalls_total", "Stalls of more than a second: a worker accepted nothing, while others did.", c.Stalls)
	w.counter("handoff_steering_changes_total", "Changes of the set of sockets that connections are steered to.", c.Steerings)
	w.counter("handoff_connections_rescued_total", "Connections handed from a socket that nobody accepts from to a live worker.", c.Rescued)
	w.counter("handoff_connections_kept_total", "Idle connections of workers that drained, held beside the program.", c.Kept.Taken)
	w.counters("handoff_connections_kept_ended_total", "What became of these: answered by another worker, idle (no request came), closed (it was not HTTP/1), left to the program, lost with a relay process that was killed.", "end",
		map[string]int{"answered": c.Kept.Answered, "idle": c.Kept.Idle, "closed": c.Kept.Closed, "left": c.Kept.Left, "lost": c.Kept.Lost}, "answered", "idle", "closed", "left", "lost")
	w.counter("handoff_connections_stranded_total", "Connections that no worker took.", c.Stranded)
	w.counter("handoff_output_lines_lost_total", "Lines of workers' output that could not be written: the disk is full, or nobody reads.", c.LinesLost)
	w.counter("handoff_master_restarts_total", "Masters that have died.", c.Masters)
	w.counter("handoff_upgrades_total", "Upgrades of handoff itself.", c.Upgrades)
	w.histogram("handoff_reload_duration_seconds", "From the order to reload until the new generation serves.", c.Reload)
	w.histogram("handoff_worker_ready_seconds", "From a worker's start until it is ready.", c.Ready)
	w.histogram("handoff_worker_drain_seconds", "From the order to drain until the worker has ended.", c.Drain)
	return w.Flush()
}

type writer struct{ *bufio.Writer }

func (w writer) family(name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value; labels are names and values in turns.
func (w writer) sample(name string, value float64, labels ...string) {
	w.WriteString(name)
	if len(labels) > 0 {
		w.WriteByte('{')
		for i := 0; i < len(labels); i += 2 {
			if i > 0 {
				w.WriteByte(',')
			}
			fmt.Fprintf(w, `%s="%s"`, labels[i], escape(labels[i+1]))
		}
		w.WriteByte('}')
	}
	fmt.Fprintf(w, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(s, "?"))
}

func (w writer) counter(name, help string, n int) {
	w.family(name, "counter", help)
	w.sample(name, float64(n))
}

// counters writes one for each value of a label, those that are known also where
// they are 0.
func (w writer) counters(name, help, label string, all map[string]int, known ...string) {
	w.family(name, "counter", help)
	for _, k := range known {
		w.sample(name, float64(all[k]), label, k)
	}
}

func (w writer) histogram(name, help string, h api.Histogram) {
	w.family(name, "histogram", help)
	sum := 0
	for i, bound := range api.Bounds() {
		if i < len(h.Counts) {
			sum += h.Counts[i]
		}
		w.sample(name+"_bucket", float64(sum), "le", strconv.FormatFloat(bound, 'g', -1, 64))
	}
	if n := len(h.Counts); n > 0 {
		sum += h.Counts[n-1]
	}
	w.sample(name+"_bucket", float64(sum), "le", "+Inf")
	w.sample(name+"_sum", h.Sum)
	w.sample(name+"_count", float64(sum))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
