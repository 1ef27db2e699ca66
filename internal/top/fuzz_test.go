package top

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"handoff/internal/admin"
	"handoff/internal/api"
)

// Lines of events and of workers' output, and a status: the screen is as large as it is, and
// nothing of what workers have written does anything to the terminal but colours.
func FuzzScreen(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"Worker \u001b[2J\u0007 crashed","slot":1,"generation":2}`), []byte(`{"name":"web","slot":0,"line":"\u001b]0;x\u0007\u001b[31mred\u001b[2J\u009b3J"}`), []byte(`{"name":"web","slots":2,"workers":[{"worker":1,"slot":0,"phase":"serving","status":"a\u001b[2Jb"}]}`), 80, 24)
	f.Add([]byte(`{}`), []byte(`{"line":"a\nb\r"}`), []byte(`{"last_error":"\u001bc","addresses":[{"address":"\u001b[H"}],"vacant":[{"slot":1}],"next":[{}]}`), 1, 1)
	f.Fuzz(func(t *testing.T, event, output, status []byte, width, height int) {
		m := &model{client: &admin.Client{Name: "web"}, width: max(min(width, 300), 40), height: max(min(height, 100), 10), history: map[int]*history{}}
		var s api.Status
		if json.Unmarshal(status, &s) == nil {
			s.Workers = s.Workers[:min(len(s.Workers), 1000)]
			m.Update(statusMsg{s, time.Unix(0, 0), nil})
		}
		m.Update(lineMsg{"events", event})
		m.Update(lineMsg{"output", output})
		for _, m.output = range []bool{false, true} {
			out := m.screen()
			if m.known && len(out) != m.height {
				t.Errorf("%d lines of %d", len(out), m.height)
			}
			for _, line := range out {
				if ansi.StringWidth(line) > m.width && !strings.Contains(line, "quit") {
					t.Errorf("%q is %d wide of %d", line, ansi.StringWidth(line), m.width)
				}
				for _, part := range strings.Split(line, "\x1b[") {
					_, after, ok := strings.Cut(part, "m")
					if i := strings.IndexFunc(part, func(r rune) bool { return (r < '0' || r > '9') && r != ';' && r != ':' }); ok && i >= 0 && part[i] == 'm' {
						part = after
					}
					if strings.ContainsFunc(part, unicode.IsControl) {
						t.Fatalf("%q of %q, %q, %q", line, event, output, status)
					}
				}
			}
		}
	})
}
