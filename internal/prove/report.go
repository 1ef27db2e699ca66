package prove

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"handoff/internal/load"
)

// words say what a class means to whom it happens.
var words = map[load.Class]string{
	load.Refused: "refused",
	load.Reset:   "reset",
	load.EOF:     "closed without a whole answer",
	load.Timeout: "not answered in time",
	load.Status:  "answered wrongly",
	load.Order:   "answered by an old generation",
	load.Other:   "failed otherwise",
	load.Inside:  "inside a killed worker",
}

// Write prints a report for a person.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t\tnew connections\t\tkeep-alive\t\t\t\t\n")
	fmt.Fprintf(t, "what was done\ttimes\trequests\tlost\trequests\tlost\tp99 ms\tworst ms\t\n")
	var calm float64
	for i := range r.Parts {
		p := &r.Parts[i]
		p99, worst := p.Latency()
		beside := ""
		if i == 0 {
			calm = p99
		} else if calm > 0 {
			beside = fmt.Sprintf(" (×%.1f)", p99/calm)
		}
		times := "-"
		if p.Name != Undisturbed {
			times = strconv.Itoa(p.Times)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f%s\t%.1f\t\n", p.Name, times, p.New.Requests, p.New.Lost(), p.Kept.Requests, p.Kept.Lost(), p99, beside, worst)
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
		fmt.Fprintf(w, "\n%s kept connections were closed while they were idle, without a word before. No request was on its way on this machine;\nover a network, some would have been lost%s.\n",
			thousands(n), map[bool]string{true: ", and every client has to connect again"}[r.Echo])
	}
	for _, e := range r.Explain() {
		fmt.Fprintf(w, "\n%s\n", e)
	}
	fmt.Fprintf(w, "\n%s\n", r.Verdict())
	return nil
}

// idleClosed is how many kept connections were closed while idle in the parts that were
// disturbed, beyond what the undisturbed one lets expect.
func (r *Report) idleClosed() (n int64) {
	if len(r.Parts) == 0 {
		return 0
	}
	calm := float64(r.Parts[0].Kept.IdleClosed) / max(r.Parts[0].Elapsed.Seconds(), 1)
	for _, p := range r.Parts[1:] {
		n += max(p.Kept.IdleClosed-int64(2*calm*p.Elapsed.Seconds()), 0)
	}
	return n
}

// Verdict is the whole in a sentence.
func (r *Report) Verdict() string {
	lost, inside := r.Lost()
	var bad []string
	if lost > 0 && r.Proven() {
		return fmt.Sprintf("Nothing was lost but %s requests of %s that were inside workers that were killed with -9.", thousands(inside), thousands(r.Requests()))
	}
	if lost > 0 {
		what := fmt.Sprintf("LOST: %s of %s requests", thousands(lost), thousands(r.Requests()))
		if inside == lost {
			what += ", all of them inside workers that were killed with -9"
		} else if inside > 0 {
			what += fmt.Sprintf(", %d of them inside workers that were killed with -9", inside)
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

// Requests is their number, of all parts.
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

// Latency is the 99th percentile and the worst, in milliseconds, of good answers of
// both kinds, from when the request was due.
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

func (r *Report) lost() (all []lost) {
	for _, p := range r.Parts {
		for _, side := range []struct {
			kept bool
			r    load.Result
		}{{false, p.New}, {true, p.Kept}} {
			for k, n := range side.r.Kinds {
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

// Explain says of each kind of failure what it means, and what may help. What is said
// once is not said again.
func (r *Report) Explain() (all []string) {
	said := map[string]bool{}
	if len(r.Parts) > 0 && r.Parts[0].Lost() > 0 {
		all = append(all, "Requests were lost while nothing was done: look at the program, or at what it can do at once (--rate, --clients), first. As many would have been lost anyway in what follows.")
	}
	for _, l := range r.lost() {
		connection := "on new connections"
		switch {
		case l.kind.Reused:
			connection = "on connections that had been used before"
		case l.kept:
			connection = "as the first of a connection"
		}
		line := fmt.Sprintf("%s: %d %s, %s", l.part, l.count, words[l.kind.Class], connection)
		if l.example != "" {
			line += " (" + l.example + ")"
		}
		if help := helps(l); help != "" && !said[help] {
			said[help] = true
			line += ".\n  " + strings.ReplaceAll(help, "\n", "\n  ")
		} else if help != "" {
			line += ": the same"
		}
		all = append(all, line)
	}
	return all
}

// helps says what the cause of a kind of failure is, as far as it can be told, and
// which option is for it.
func helps(l lost) string {
	byHandoff := l.part == string(Upgrade) || l.part == string(KillMaster)
	switch k := l.kind; {
	case byHandoff && k.Class != load.Inside && k.Class != load.Status || !k.Reused && k.Stage == load.Connect && k.Class == load.Reset:
		return "No worker was told anything at that moment: this may be a fault of handoff's. Keep what it writes (--output FILE), and report it."
	case k.Class == load.Inside:
		return "A request that a process had when it was killed with -9 is gone with it; nothing outside of it can answer. --allow-inside lets that pass."
	case k.Class == load.Order:
		return "A process of an old generation went on accepting. Either the program listens on a socket of its own, which handoff does not hold\n(see --hold, --no-hold, SO_REUSEPORT in the program), or something of it lives on outside of its process group."
	case k.Class == load.Status && l.part == Undisturbed:
		return "The program's own answer differs from one time to the next: give a request whose status does not (--request FILE)."
	case k.Class == load.Status:
		return "The program answered, and wrongly: a new worker before it could (--ready-when ready, and say so when it can),\nor an old one that was shutting down already."
	case k.Class == load.Timeout && k.Stage == load.Connect:
		return "The kernel did not complete the connection: the accept queue was full. The program accepts too slowly, or not at all."
	case k.Class == load.Timeout:
		return "It was accepted, or in a worker's queue, and nobody answered: a worker that stopped accepting or hangs (--stall-kill replaces one\nthat accepts nothing), or says that it is ready too soon (--ready-when ready)."
	case k.Class == load.Refused:
		return "Nobody listened at that moment: the program listens on a socket that handoff does not hold (--no-hold, another address than in handoff status),\nor it closed the only one."
	case k.Reused && (k.Stage == load.Answer || k.Stage == load.Write):
		return "The program closed an idle keep-alive connection just when a request came: it does so in its own shutdown, without telling clients before.\nNode: leave the preload on (no --no-preload), and --keepalive-linger longer than clients are idle. Go: package handoff/worker.\nOthers: docs/programs.md says what helps; clients may repeat such a request (RFC 9112, 9.3.1)."
	case k.Stage == load.Body:
		return "An answer was cut in the middle: the program did not wait for what it had begun. Let it finish on its drain signal (--drain-signal),\nand give it the time (--drain-timeout)."
	case k.Class == load.Reset || k.Class == load.EOF:
		return "A request that the program had been given was dropped: it ends on its drain signal without finishing what it has, or resets connections.\nLet it catch the signal (--drain-signal names another than TERM), and give it the time (--drain-timeout)."
	}
	return ""
}

// JSON is the report for machines; its fields are added to, never changed.
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
		failures = append(failures, map[string]any{"part": l.part, "class": string(l.kind.Class), "connection": connection, "stage": string(l.kind.Stage), "count": l.count, "example": l.example, "help": helps(l)})
	}
	lost, inside := r.Lost()
	return map[string]any{"schema": 1, "lost": lost, "proven": r.Proven(), "inside_killed": inside, "requests": r.Requests(), "wants": r.Wants, "verdict": r.Verdict(), "parts": parts, "failures": failures}
}
