// Package top is the screen of `handoff top`. It asks a running handoff as any
// client does, and knows nothing else of it.
package top

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/capture"
	"handoff/internal/printable"
)

// every is how often the status is asked for, kept is how many values a sparkline
// has, lines how many of a log are remembered.
const (
	every = 500 * time.Millisecond
	kept  = 16
	lines = 200
	// maxNotes is how many slots without a worker, and plans, are shown where there is room.
	maxNotes = 2
)

// Run shows the screen until the user ends it.
func Run(client *admin.Client) error {
	m := &model{client: client, width: 80, height: 24, history: map[int]*history{}}
	p := tea.NewProgram(m)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, path := range map[string]string{"events": api.EventsPath, "output": api.LogsPath} {
		go stream(ctx, client, path, func(line []byte) { p.Send(lineMsg{name, line}) }) // ends with the process
	}
	_, err := p.Run()
	return err
}

// stream follows one log, also over masters.
func stream(ctx context.Context, client *admin.Client, path string, f func([]byte)) {
	var seen time.Time
	for ctx.Err() == nil {
		client.Stream(path+"?follow=1&last=100", func(line []byte) {
			var e struct{ Time time.Time }
			if json.Unmarshal(line, &e) == nil && e.Time.After(seen) {
				seen = e.Time
				f(slices.Clone(line))
			}
		})
		time.Sleep(every) // the next master, or there is no such log
	}
}

type (
	statusMsg struct {
		s   api.Status
		at  time.Time
		err error
	}
	lineMsg struct {
		of   string
		line []byte
	}
	doneMsg struct{ text string }
)

// history is what a slot's worker did, for sparklines.
type history struct {
	worker int
	cpu    float64 // seconds, at the last look
	at     time.Time
	load   []float64 // of a CPU
	queue  []float64
}

type model struct {
	client        *admin.Client
	width, height int
	s             api.Status
	known         bool
	err           error
	at            time.Time
	history       map[int]*history // by worker
	selected      int              // of the table's rows
	output        bool             // what workers write is shown, not events
	events        []string
	written       []string
	said          string // what came of the last key
	asking        bool   // to stop everything
}

func (m *model) Init() tea.Cmd { return m.ask }

func (m *model) ask() tea.Msg {
	s, err := m.client.Status()
	return statusMsg{s, time.Now(), err}
}

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 40), max(msg.Height, 10)
	case statusMsg:
		m.took(msg)
		return m, tea.Tick(every, func(time.Time) tea.Msg { return m.ask() })
	case lineMsg:
		m.heard(msg)
	case doneMsg:
		m.said = msg.text
	case tea.KeyPressMsg:
		return m, m.pressed(msg.String())
	}
	return m, nil
}

func (m *model) took(msg statusMsg) {
	if m.err = msg.err; msg.err != nil {
		return
	}
	before := m.s.Workers
	m.s, m.known, m.at = msg.s, true, msg.at
	m.selected = follow(before, m.s.Workers, m.selected)
	there := map[int]bool{}
	for _, w := range m.s.Workers {
		there[w.Worker] = true
		h := m.history[w.Worker]
		if h == nil {
			h = &history{worker: w.Worker}
			m.history[w.Worker] = h
		}
		if !h.at.IsZero() && msg.at.After(h.at) {
			h.load = last(append(h.load, max(w.CPU-h.cpu, 0)/msg.at.Sub(h.at).Seconds()))
		}
		h.cpu, h.at = w.CPU, msg.at
		h.queue = last(append(h.queue, float64(w.Queue)))
	}
	for id := range m.history {
		if !there[id] {
			delete(m.history, id)
		}
	}
}

// follow finds the selected row in a new table: the same worker's, else the same slot's,
// preferably of a worker in service.
func follow(before, now []api.WorkerStatus, selected int) int {
	if selected < len(before) {
		was := before[selected]
		of := -1
		for i, w := range now {
			switch {
			case w.Worker == was.Worker && w.Phase != "draining":
				return i
			case w.Slot == was.Slot && (of < 0 || w.Steered):
				of = i
			}
		}
		if of >= 0 {
			return of
		}
	}
	return max(min(selected, len(now)-1), 0)
}

func last(v []float64) []float64 { return v[max(0, len(v)-kept):] }

func (m *model) heard(msg lineMsg) {
	if msg.of == "output" {
		var l capture.Line
		if json.Unmarshal(msg.line, &l) == nil {
			m.written = append(m.written, fmt.Sprintf("%s.%d | %s", l.Name, l.Slot, l.Line))
			m.written = m.written[max(0, len(m.written)-lines):]
		}
		return
	}
	var e struct {
		Time       time.Time
		Level, Msg string
		Slot       *int
		Generation int
		Reason     string
	}
	if json.Unmarshal(msg.line, &e) != nil {
		return
	}
	text := e.Time.Local().Format(time.TimeOnly) + " " + e.Msg
	if e.Slot != nil {
		text += fmt.Sprintf(" (slot %d)", *e.Slot)
	}
	if e.Generation > 0 {
		text += fmt.Sprintf(" generation %d", e.Generation)
	}
	switch e.Level {
	case "ERROR":
		text = bad(text)
	case "WARN":
		text = warn(text)
	}
	m.events = append(m.events, text)
	m.events = m.events[max(0, len(m.events)-lines):]
}

// do calls the service, and shows the result.
func (m *model) do(f func() error, done string) tea.Cmd {
	m.said = "…"
	return func() tea.Msg {
		if err := f(); err != nil {
			return doneMsg{bad(err.Error())}
		}
		return doneMsg{done}
	}
}

func (m *model) pressed(key string) tea.Cmd {
	asking := m.asking
	m.asking = false
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "r":
		return m.do(func() error { _, err := m.client.Reload(); return err }, "reload requested")
	case "+", "=":
		return m.do(func() error { _, err := m.client.Scale("+1"); return err }, "adding a worker")
	case "-":
		return m.do(func() error { _, err := m.client.Scale("-1"); return err }, "removing a worker")
	case "x":
		if m.selected < len(m.s.Workers) {
			slot := m.s.Workers[m.selected].Slot
			return m.do(func() error { _, err := m.client.Restart(slot); return err }, fmt.Sprintf("replacing slot %d", slot))
		}
	case "S":
		m.asking, m.said = true, warn("Stop the service? y")
	case "y":
		if asking {
			return m.do(func() error { return m.client.Stop(false) }, "stopping")
		}
	case "l":
		m.output = !m.output
	case "up", "k":
		m.selected = max(m.selected-1, 0)
	case "down", "j":
		m.selected = max(min(m.selected+1, len(m.s.Workers)-1), 0)
	}
	return nil
}

// The looks of words: in the terminal's own colours.
func bold(s string) string { return lipgloss.NewStyle().Bold(true).Render(s) }
func dim(s string) string  { return lipgloss.NewStyle().Faint(true).Render(s) }
func mark(s string) string { return lipgloss.NewStyle().Reverse(true).Render(s) }
func good(s string) string { return lipgloss.NewStyle().Foreground(lipgloss.Green).Render(s) }
func warn(s string) string { return lipgloss.NewStyle().Foreground(lipgloss.Yellow).Render(s) }
func bad(s string) string  { return lipgloss.NewStyle().Foreground(lipgloss.Red).Render(s) }

func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "handoff top " + m.client.Name
	return v
}

// line is a line of the screen: names and text of workers can colour it, nothing else.
func line(text string, width int) string {
	text = printable.Coloured(strings.NewReplacer("\n", " ", "\t", " ").Replace(text))
	return ansi.Truncate(text, width, "…")
}

// screen is the lines of the screen, each cut to its width, as many as it is high.
func (m *model) screen() []string {
	var out []string
	add := func(text string) { out = append(out, line(text, m.width)) }
	s := m.s
	if !m.known {
		add(bold(m.client.Name))
		if m.err != nil {
			add(bad(m.err.Error()))
		}
		return out
	}
	style := good
	switch s.State {
	case "reloading", "starting":
		style = warn
	case api.StateDegraded, api.StateStopping:
		style = bad
	}
	state := style("● " + s.State)
	if m.err != nil {
		state = bad("● does not respond")
	}
	generation := fmt.Sprintf("generation %d", s.Generation)
	if s.Wanted != s.Generation {
		generation += warn(fmt.Sprintf(" → %d", s.Wanted))
	}
	add(fmt.Sprintf("%s  %s  %d/%d ready  %s  pid %d  up %s", bold(s.Name), state, s.Ready, s.Slots, generation, s.PID, short(m.at.Sub(s.Started))))
	var at []string
	for _, a := range s.Addresses {
		at = append(at, fmt.Sprintf("%s (%s, %d waiting)", a.Address, a.Balance, a.Queue))
	}
	add(dim(strings.Join(at, "  ")))
	if s.LastError != "" {
		add(bad("last error: " + s.LastError))
	}
	add(bold(fmt.Sprintf("%4s %8s %4s %-9s %6s %5s %-*s %5s %-*s %8s %s", "SLOT", "PID", "GEN", "PHASE", "READY", "QUEUE", m.sparks(), "", "CPU", m.sparks(), "", "MEMORY", "STATUS")))
	notes := 0
	if m.height >= 20 {
		notes = maxNotes
	}
	// The table has at most half of the screen; the selected row is in it.
	most := max((m.height-len(out)-3-min(len(s.Vacant), notes)-min(len(s.Next), notes))/2, 2)
	from := max(min(m.selected-most/2, len(s.Workers)-most), 0)
	for i := from; i < min(from+most, len(s.Workers)); i++ {
		add(m.row(i))
	}
	if n := len(s.Workers) - most; n > 0 {
		add(dim(fmt.Sprintf("     %d more", n)))
	}
	for _, v := range s.Vacant[:min(len(s.Vacant), notes)] {
		add(bad(fmt.Sprintf("%4d %8s %4d %s: %s", v.Slot, "-", v.Generation, v.State, v.Text(m.at))))
	}
	for _, n := range s.Next[:min(len(s.Next), notes)] {
		add(dim("next: " + n.Text(m.at)))
	}
	log, title := m.events, "events"
	if m.output {
		log, title = m.written, "output"
		if len(log) == 0 {
			log = []string{dim("No output: workers have written nothing, or their output is not captured (handoff run --capture).")}
		}
	}
	add(dim("── " + title + " " + strings.Repeat("─", max(m.width-len(title)-4, 0))))
	room := max(m.height-len(out)-1, 0)
	for _, line := range log[max(0, len(log)-room):] {
		add(line)
	}
	for len(out) < m.height-1 {
		out = append(out, "")
	}
	add(bold("r") + " reload  " + bold("+ -") + " scale  " + bold("x") + " restart slot  " + bold("l") + " log  " + bold("S") + " stop  " + bold("q") + " quit  " + m.said)
	return out
}

func (m *model) row(i int) string {
	w := m.s.Workers[i]
	h := m.history[w.Worker]
	ready := "-"
	if w.Ready != nil {
		ready = short(m.at.Sub(*w.Ready))
	}
	cpu := 0.0
	if n := len(h.load); n > 0 {
		cpu = h.load[n-1]
	}
	phase, status := w.Phase, w.Status
	if w.Stalled {
		phase = "stalled"
	}
	if restarts := api.RestartsText(w.RestartReasons, w.Restarts); restarts != "0" {
		status = strings.TrimSpace("↺ " + restarts + " " + status)
	}
	text := fmt.Sprintf("%4d %8d %4d %-9s %6s %5d %-*s %4.0f%% %-*s %5.0f MB %s", w.Slot, w.PID, w.Generation, phase, ready, w.Queue,
		m.sparks(), spark(h.queue, m.sparks()), 100*cpu, m.sparks(), spark(h.load, m.sparks()), float64(w.RSS)/(1<<20), status)
	switch {
	case i == m.selected:
		return mark(text)
	case w.Stalled:
		return bad(text)
	case w.Generation > m.s.Generation:
		return warn(text)
	case !w.Steered:
		return dim(text)
	}
	return text
}

// sparks is how wide a sparkline is.
func (m *model) sparks() int {
	if m.width < 100 {
		return 6
	}
	return kept
}

// spark draws the last n values, the largest of them, or 1, in full height.
func spark(values []float64, n int) string {
	values = values[max(0, len(values)-n):]
	most := 1.0
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(int(v/most*7.999), 7)])
	}
	return b.String()
}

func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
