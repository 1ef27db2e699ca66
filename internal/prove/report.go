package prove

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"handoff/internal/load"
)

// words describes a class from the client's point of view.
var words = map[load.Class]string{
	load.Refused: "refused",
	load.Reset:   "reset",
	load.EOF:     "closed before a complete response",
	load.Timeout: "timed out",
	load.Status:  "unexpected response",
	load.Order:   "answered by an old generation",
	load.Other:   "other errors",
	load.Inside:  "inside a killed worker",
}

// Write prints a report for a person.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t\tnew connections\t\tkeep-alive\t\t\t\t\n")
	fmt.Fprintf(t, "disturbance\ttimes\trequests\tlost\trequests\tlost\tp99 ms\tmax ms\t\n")
	var baseline float64
	for i := range r.Parts {
		p := &r.Parts[i]
		p99, worst := p.Latency()
		ratio := ""
		if i == 0 {
			baseline = p99
		} else if baseline > 0 {
			ratio = fmt.Sprintf(" (×%.1f)", p99/baseline)
		}
		times := "-"
		if p.Name != Undisturbed {
			times = strconv.Itoa(p.Times)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f%s\t%.1f\t\n", p.Name, times, p.New.Requests, p.New.Lost(), p.Kept.Requests, p.Kept.Lost(), p99, ratio, worst)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, p := range r.Parts {
		if p.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", p.Name, p.Note)
		}
	}
	var classes []string
	for _, c := range load.Classes {
		if n := r.class(c); n > 0 || c != load.Inside && c != load.Other {
			classes = append(classes, fmt.Sprintf("%s %d", words[c], n))
		}
	}
	fmt.Fprintf(w, "Of %s requests: %s.\n", thousands(r.Requests()), strings.Join(classes, ", "))
	if n := r.idleClosed(); n > 0 {
		fmt.Fprintf(w, "\n%s keep-alive connections were closed while idle, without notice. No request was in flight here;\nover a network, some would have been lost%s.\n",
			thousands(n), map[bool]string{true: ", and each client must reconnect"}[r.Echo])
	}
	for _, e := range r.Explain() {
		fmt.Fprintf(w, "\n%s\n", e)
	}
	fmt.Fprintf(w, "\n%s\n", r.Verdict())
	return nil
}

// idleClosed returns how many kept connections were closed while idle in the disturbed
// parts, in excess of twice the rate of the undisturbed part.
func (r *Report) idleClosed() (n int64) {
	if len(r.Parts) == 0 {
		return 0
	}
	rate := float64(r.Parts[0].Kept.IdleClosed) / max(r.Parts[0].Elapsed.Seconds(), 1)
	for _, p := range r.Parts[1:] {
		n += max(p.Kept.IdleClosed-int64(2*rate*p.Elapsed.Seconds()), 0)
	}
	return n
}

// Verdict is the result in one sentence.
func (r *Report) Verdict() string {
	lost, inside := r.Lost()
	var bad []string
	if lost > 0 && r.Proven() {
		return fmt.Sprintf("Nothing was lost, except %s of %s requests inside workers killed with -9.", thousands(inside), thousands(r.Requests()))
	}
	if lost > 0 {
		what := fmt.Sprintf("LOST: %s of %s requests", thousands(lost), thousands(r.Requests()))
		if inside == lost {
			what += ", all of them inside workers killed with -9"
		} else if inside > 0 {
			what += fmt.Sprintf(", %s of them inside workers killed with -9", thousands(inside))
		}
		bad = append(bad, what+".")
	}
	for _, e := range r.Errors() {
		bad = append(bad, "NOT PROVEN: "+e+".")
	}
	if len(bad) > 0 {
		return strings.Join(bad, "\n")
	}
	return fmt.Sprintf("Nothing was lost: 0 of %s requests.", thousands(r.Requests()))
}

// Requests is the number of requests in all parts.
func (r *Report) Requests() (n int64) {
	for i := range r.Parts {
		n += r.Parts[i].New.Requests + r.Parts[i].Kept.Requests
	}
	return n
}

func (r *Report) class(c load.Class) (n int64) {
	for i := range r.Parts {
		n += r.Parts[i].New.Failed[c] + r.Parts[i].Kept.Failed[c]
	}
	return n
}

// Latency returns the 99th percentile and the maximum, in milliseconds, of the good
// responses of both kinds, counted from when each request was due.
func (p *Part) Latency() (p99, worst float64) {
	h := load.NewLatency()
	h.Merge(p.New.Latency)
	h.Merge(p.Kept.Latency)
	return float64(h.ValueAtQuantile(99)) / 1000, float64(h.Max()) / 1000
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// lost is one kind of failure in one part.
type lost struct {
	part    string
	kind    load.Kind
	kept    bool // of the clients that keep their connections
	count   int64
	example string
}

// lost returns each kind of failure in each part, the most frequent first.
func (r *Report) lost() (all []lost) {
	for _, p := range r.Parts {
		for _, side := range []struct {
			kept bool
			r    load.Result
		}{{false, p.New}, {true, p.Kept}} {
			kinds := slices.SortedFunc(maps.Keys(side.r.Kinds), func(a, b load.Kind) int {
				return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) // any order that is always the same
			})
			for _, k := range kinds {
				n := side.r.Kinds[k]
				l := lost{part: p.Name, kind: k, kept: side.kept, count: n}
				for _, s := range side.r.Samples {
					if s.Class == k.Class && s.Reused == k.Reused && s.Stage == k.Stage {
						l.example = short(fmt.Sprint(s.Err))
						break
					}
				}
				all = append(all, l)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b lost) int { return int(b.count - a.count) })
	return all
}

// Explain describes each kind of failure: its cause and what to do. An advice is given
// once.
func (r *Report) Explain() (all []string) {
	said := map[string]bool{}
	if len(r.Parts) > 0 && r.Parts[0].Lost() > 0 {
		all = append(all, "Requests were lost before any disturbance. Fix the program, or reduce the load (--rate, --clients), first: some of the losses below have the same cause.")
	}
	for _, l := range r.lost() {
		connection := "on new connections"
		switch {
		case l.kind.Reused:
			connection = "on reused connections"
		case l.kept:
			connection = "as the first request of a connection"
		}
		line := fmt.Sprintf("%s: %d %s, %s", l.part, l.count, words[l.kind.Class], connection)
		if l.example != "" {
			line += " (" + l.example + ")"
		}
		if help := r.helps(l); help != "" && !said[help] {
			said[help] = true
			line += ".\n  " + strings.ReplaceAll(help, "\n", "\n  ")
		} else if help != "" {
			line += ": see above"
		}
		all = append(all, line)
	}
	return all
}

// helps returns the likely cause of a kind of failure, and the option that prevents it.
func (r *Report) helps(l lost) string {
	byHandoff := l.part == string(Upgrade) || l.part == string(KillMaster)
	switch k := l.kind; {
	case byHandoff && k.Class != load.Inside && k.Class != load.Status || !k.Reused && k.Stage == load.Connect && k.Class == load.Reset:
		return "No worker was being drained at that moment: this may be a defect of handoff. Save its output (--output FILE) and report it."
	case k.Class == load.Inside:
		return "A request inside a process that is killed with -9 cannot be answered by any other. --allow-inside does not count these."
	case k.Class == load.Order:
		return "A process of an old generation kept accepting. Either the program listens on a socket of its own, which handoff does not hold\n(see --hold, --no-hold, SO_REUSEPORT in the program), or a child process outside its process group is still running."
	case k.Class == load.Status && l.part == Undisturbed:
		return "The program's status varies without any disturbance. Use requests whose status is always the same (--request FILE)."
	case k.Class == load.Status:
		return "The program answered with another status or body: a new worker that was not ready yet (--ready-when ready, and report readiness),\nor an old one that was already shutting down."
	case k.Class == load.Timeout && k.Stage == load.Connect:
		return "The kernel did not complete the connection, since the accept queue was full: the program accepts too slowly, or not at all."
	case k.Class == load.Timeout:
		return "The connection was accepted or queued, but not answered in time: the worker hangs or stopped accepting (--stall-kill replaces\na worker that accepts nothing), or it reports readiness too early (--ready-when ready)."
	case k.Class == load.Refused:
		return "No socket was listening at that moment: the program listens on one that handoff does not hold (--no-hold, or an address that\nhandoff status does not show), or it closed the only one."
	case k.Reused && (k.Stage == load.Answer || k.Stage == load.Write):
		return "The program closed an idle keep-alive connection as a request arrived: its shutdown closes them without first announcing it to clients.\nNode: keep the preload enabled (no --no-preload), and --keepalive-linger longer than clients are idle. Go: package handoff/worker.\nOthers: see docs/programs.md. Clients may retry such a request (RFC 9112, 9.3.1)." + keeps[r.Keep]
	case k.Stage == load.Body:
		return "A response was cut off: the program exited before it had sent all of it. Let it finish on its drain signal (--drain-signal),\nand allow enough time (--drain-timeout)."
	case k.Class == load.Reset || k.Class == load.EOF:
		return "The program dropped a request that it had received: on its drain signal it exits without finishing, or resets connections.\nHandle the signal in the program (--drain-signal selects another than TERM), and allow enough time (--drain-timeout)."
	}
	return ""
}

// keeps is what other values of --keep-connections do for a request on a connection that the
// program has closed.
var keeps = map[string]string{
	"off":   "\n--keep-connections local has the new workers answer it, for clients on this machine; all does so for every client.",
	"local": "\n--keep-connections all has the new workers answer it, if handoff sees the client under an address of another machine (NAT, a container's\nproxy); local, as here, does so for clients of this machine.",
}

// JSON is the machine-readable report. Fields are added, never changed.
func (r *Report) JSON() map[string]any {
	side := func(s load.Result) map[string]any {
		failed := map[string]int64{}
		for c, n := range s.Failed {
			failed[string(c)] = n
		}
		return map[string]any{"requests": s.Requests, "connections": s.Connections, "idle_closed": s.IdleClosed, "lost": s.Lost(), "failed": failed,
			"p50_ms": s.Quantile(50), "p99_ms": s.Quantile(99), "max_ms": float64(s.Latency.Max()) / 1000}
	}
	parts := []map[string]any{}
	for i := range r.Parts {
		p := &r.Parts[i]
		p99, worst := p.Latency()
		took := []float64{}
		for _, d := range p.Took {
			took = append(took, d.Seconds())
		}
		parts = append(parts, map[string]any{"name": p.Name, "times": p.Times, "took_seconds": took, "seconds": p.Elapsed.Round(time.Millisecond).Seconds(),
			"note": p.Note, "error": p.Error, "new": side(p.New), "kept": side(p.Kept), "p99_ms": p99, "max_ms": worst})
	}
	failures := []map[string]any{}
	for _, l := range r.lost() {
		connection := "new"
		if l.kind.Reused {
			connection = "reused"
		}
		failures = append(failures, map[string]any{"part": l.part, "class": string(l.kind.Class), "connection": connection, "stage": string(l.kind.Stage), "count": l.count, "example": l.example, "help": r.helps(l)})
	}
	lost, inside := r.Lost()
	return map[string]any{"schema": 1, "lost": lost, "proven": r.Proven(), "inside_killed": inside, "requests": r.Requests(), "wants": r.Wants, "verdict": r.Verdict(), "parts": parts, "failures": failures}
}
