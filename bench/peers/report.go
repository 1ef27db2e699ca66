package main

import (
	"cmp"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"handoff/internal/load"
	"handoff/internal/prove"
)

// sum is one peer over all rounds.
type sum struct {
	measured
	parts map[string]*part
	quiet *measured // the round with the least p99 of its undisturbed part
}

func sums(all whole) (list []*sum) {
	by := map[string]*sum{}
	for _, m := range all.Measured {
		s := by[m.Peer]
		if s == nil {
			s = &sum{measured: m, parts: map[string]*part{}}
			by[m.Peer] = s
			list = append(list, s)
		}
		s.Error = cmp.Or(s.Error, m.Error)
		if m.Missing != "" || len(m.Parts) == 0 {
			continue
		}
		quieter := s.quiet == nil || m.Parts[0].P99 < s.quiet.Parts[0].P99
		if quieter {
			s.quiet = &m
		}
		for _, p := range m.Parts {
			t := s.parts[p.Name]
			if t == nil {
				t = &part{Name: p.Name, Failed: [2]map[load.Class]int64{{}, {}}}
				s.parts[p.Name] = t
			}
			t.Times += p.Times
			t.Note, t.Error = cmp.Or(p.Note, t.Note), cmp.Or(p.Error, t.Error)
			if quieter {
				t.P99, t.Worst = p.P99, p.Worst
			}
			for i := range 2 {
				t.Requests[i] += p.Requests[i]
				t.Lost[i] += p.Lost[i]
				for c, n := range p.Failed[i] {
					t.Failed[i][c] += n
				}
			}
		}
	}
	order := map[string]int{}
	for i, p := range peers("", "", "") {
		order[p.Name] = i
	}
	slices.SortStableFunc(list, func(a, b *sum) int { return order[a.Peer] - order[b.Peer] })
	return list
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// report writes tables and plots.
func report(all whole, out string) error {
	list := sums(all)
	var b strings.Builder
	rounds := 0
	for _, m := range all.Measured {
		rounds = max(rounds, m.Round)
	}
	fmt.Fprintf(&b, `# handoff and its peers

<!-- Written by go run ./bench/peers; do not edit. Raw data: peers.json -->

Measured on %s by `+"`go run ./bench/peers`"+`, at commit %s: %d CPUs (%s), %s, Node %s. Every tool has %d workers and the same work: an
answer with its pid. %d rounds, the tools one after the other in each; losses are sums of all rounds, figures are of the quieter round of each (by the p99 of its undisturbed part). Raw data: [peers.json](peers.json).
The load generator (internal/load) retries nothing: 1000 requests a second, half of them each on a new connection, half by 16 clients that keep theirs. It runs on the same CPUs.

`, all.Date, all.Commit, all.CPUs, all.Machine, all.Kernel, strings.TrimPrefix(all.Node, "v"), workers, rounds)
	lostTable(&b, list, fmt.Sprintf("Reloads: %d in each round", all.Reloads), string(prove.Reload), `Each reload is waited for until only new processes answer (40 answers in a row), and a second more. Classes: **refused**, **reset**, **eof** (closed
without a whole answer), **timeout** (nothing within 5 s).`)
	fmt.Fprintf(&b, "![Requests lost in reloads, of 10 000](lost.svg)\n\n")
	fmt.Fprintf(&b, "## How long a reload takes\n\nFrom the command or signal until only new processes answer.\n\n| | median s | worst s | p99 of answers meanwhile, ms | undisturbed, ms |\n|---|---:|---:|---:|---:|\n")
	for _, s := range list {
		p, calm := s.parts[string(prove.Reload)], s.parts[prove.Undisturbed]
		if p == nil || calm == nil || s.quiet == nil || len(s.quiet.ReloadSeconds) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.1f | %.1f |\n", s.Peer, median(s.quiet.ReloadSeconds), slices.Max(s.quiet.ReloadSeconds), p.P99, calm.P99)
	}
	b.WriteString("\n![Seconds until a reload is done](reload.svg)\n\n")
	actionTable(&b, list, "A broken deploy", string(prove.Broken), "The program (or configuration) is replaced by one that does not start, the tool is told to reload, and 4 s later the right one is put back.")
	actionTable(&b, list, "kill -9 of the manager", string(prove.KillMaster), "The process that the user knows by its pid; of handoff first the master, and 3 s later the keeper, whose pid it is.")
	actionTable(&b, list, "A shrink", string(prove.Scale), "From four workers to two, and back.")
	fmt.Fprintf(&b, "## Throughput and cost\n\n32 clients, as fast as they are answered, 3 s; p99 in ms. The manager is what serves nothing itself: keeper and master of handoff, PM2's daemon, the master of the others.\n\n| | new/s | p99 | keep-alive/s | p99 | manager, MB | after reloads | idle, ms CPU/s |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range list {
		q := s.quiet
		if q == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.0f | %.1f | %.1f | %.1f | %.2f |\n", s.Peer, q.New.Rate, q.New.P99, q.Kept.Rate, q.Kept.P99,
			float64(q.RSS)/1024, float64(q.RSSAfter)/1024, q.IdleCPU/1000)
	}
	b.WriteString("\n![Requests a second](throughput.svg)\n\n## What was measured, and what was unfair\n\n| | version | command | reload | |\n|---|---|---|---|---|\n")
	for _, s := range list {
		note := cmp.Or(s.Missing, s.Error, s.Note)
		fmt.Fprintf(&b, "| %s | %s | `%s` | `%s` | %s |\n", s.Peer, s.Version, shorten(s.Command), shorten(s.Reload), strings.ReplaceAll(short(note), "|", "/"))
	}
	b.WriteString(`
- The load generator and the tools share the CPUs: throughput is a comparison on this machine, and no more.
- nginx and HAProxy answer by themselves: no program boots in their reloads, and nothing in them can be broken but a configuration. They stand here for what C servers lose.
- A keep-alive connection that the server closes while it is idle is no failure, if the client could have seen it before it sent (its FIN was there). What is counted is
  a request that was sent, and not answered. Clients that follow RFC 9112 (9.3.1) may repeat such a GET; many do not repeat a POST.
- handoff's manager is small because the workers are whole: "handoff, gunicorn" and "handoff, Puma" have four servers with a master of their own each, which the master of gunicorn or Puma alone would share (copy on write, too, with preload).
- A broken deploy and a kill were done in the first round only.
- Tools that do not say when a reload is done are given until only new processes answer; one that is asked again while the last one goes on may ignore it. That is no loss, and not counted.
- "Draining app" is PM2's and cluster's best case: the program itself says ` + "`Connection: close`" + ` and lets idle connections linger. handoff does that for the plain program.
`)
	facts, err := os.ReadFile("bench/peers/facts.md") // what was measured elsewhere before, and how this agrees
	if err != nil {
		return err
	}
	b.Write(facts)
	if err := os.WriteFile(filepath.Join(out, "peers.md"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	return plots(list, out)
}

func short(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func shorten(words []string) string {
	s := strings.Join(words, " ")
	for _, path := range []string{"/tmp/peers/npm/node_modules/.bin/", "/tmp/peers/work/", "/tmp/peers/", "bench/peers/testdata/"} {
		s = strings.ReplaceAll(s, path, "")
	}
	if i := strings.Index(s, "/bench/"); i >= 0 {
		s = strings.ReplaceAll(s, s[strings.LastIndexByte(s[:i], ' ')+1:i+1], "")
	}
	return strings.ReplaceAll(s, "|", "/")
}

func classes(failed [2]map[load.Class]int64) string {
	var all []string
	for _, c := range load.Classes {
		if n := failed[0][c] + failed[1][c]; n > 0 {
			all = append(all, fmt.Sprintf("%s %d", c, n))
		}
	}
	return strings.Join(all, ", ")
}

func lostTable(b *strings.Builder, list []*sum, title, name, what string) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n| | reloads done | lost, new connections | lost, keep-alive | by class | |\n|---|---:|---:|---:|---|---|\n", title, what)
	for _, s := range list {
		p := s.parts[name]
		if p == nil {
			fmt.Fprintf(b, "| %s | | | | | not measured: %s |\n", s.Peer, short(cmp.Or(s.Missing, s.Error)))
			continue
		}
		fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s |\n", s.Peer, p.Times, of(p.Lost[0], p.Requests[0]), of(p.Lost[1], p.Requests[1]), classes(p.Failed), short(p.Error))
	}
	b.WriteString("\n")
}

func of(lost, n int64) string {
	s := fmt.Sprintf("%d of %d", lost, n)
	if lost == 0 {
		return "**0** of " + fmt.Sprint(n)
	}
	return s
}

func actionTable(b *strings.Builder, list []*sum, title, name, what string) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n| | lost, new connections | lost, keep-alive | by class | |\n|---|---:|---:|---|---|\n", title, what)
	for _, s := range list {
		p := s.parts[name]
		if p == nil || p.Times == 0 && p.Error == "" {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", s.Peer, of(p.Lost[0], p.Requests[0]), of(p.Lost[1], p.Requests[1]), classes(p.Failed), short(cmp.Or(p.Error, p.Note)))
	}
	b.WriteString("\n")
}

// plots draws bars, one for each peer.
func plots(list []*sum, out string) error {
	rate := func(i int) func(*sum) float64 {
		return func(s *sum) float64 {
			if p := s.parts[string(prove.Reload)]; p != nil && p.Requests[i] > 0 {
				return 10000 * float64(p.Lost[i]) / float64(p.Requests[i])
			}
			return 0
		}
	}
	if err := bars(list, "Lost in reloads, of 10 000 requests", filepath.Join(out, "lost.svg"), map[string]func(*sum) float64{"new connections": rate(0), "keep-alive": rate(1)}); err != nil {
		return err
	}
	if err := bars(list, "Seconds until a reload is done (median)", filepath.Join(out, "reload.svg"), map[string]func(*sum) float64{
		"seconds": func(s *sum) float64 { return median(s.quiet.ReloadSeconds) }}); err != nil {
		return err
	}
	return bars(list, "Requests a second, each on a new connection", filepath.Join(out, "throughput.svg"), map[string]func(*sum) float64{
		"new connections": func(s *sum) float64 { return s.quiet.New.Rate }})
}

var colours = map[string]color.Color{"new connections": color.RGBA{0x1f, 0x77, 0xb4, 0xff}, "keep-alive": color.RGBA{0xff, 0x7f, 0x0e, 0xff}, "seconds": color.RGBA{0x2c, 0xa0, 0x2c, 0xff}}

func bars(list []*sum, title, path string, of map[string]func(*sum) float64) error {
	p := plot.New()
	p.Title.Text = title
	p.X.Min = 0
	var names []string
	for _, s := range slices.Backward(list) {
		if len(s.parts) > 0 {
			names = append(names, s.Peer)
		}
	}
	width := vg.Points(16) / vg.Length(len(of))
	offset := -width * vg.Length(len(of)-1) / 2
	for _, name := range []string{"keep-alive", "new connections", "seconds"} {
		f, ok := of[name]
		if !ok {
			continue
		}
		var v plotter.Values
		for _, s := range slices.Backward(list) {
			if len(s.parts) > 0 {
				v = append(v, f(s))
			}
		}
		c, err := plotter.NewBarChart(v, width)
		if err != nil {
			return err
		}
		c.Horizontal, c.Offset, c.Color, c.LineStyle.Width = true, offset, colours[name], 0
		offset += width
		p.Add(c)
		var labels plotter.XYLabels
		for i, x := range v {
			labels.XYs = append(labels.XYs, plotter.XY{X: x, Y: float64(i)})
			labels.Labels = append(labels.Labels, fmt.Sprintf(" %.3g", x))
		}
		l, err := plotter.NewLabels(labels)
		if err != nil {
			return err
		}
		l.Offset = vg.Point{X: 2, Y: c.Offset - 4}
		p.Add(l)
		if len(of) > 1 {
			p.Legend.Add(name, c)
		}
	}
	p.Legend.Top = false
	p.NominalY(names...)
	p.X.Max *= 1.12
	return p.Save(9*vg.Inch, vg.Length(len(names))*0.36*vg.Inch+vg.Inch, path)
}
