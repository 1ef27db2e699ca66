package prove

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// What handoff and the program have written before it did not serve, as a report quotes it.
func FuzzOutput(f *testing.F) {
	f.Add([]byte(`{"level":"WARN","msg":"Slow","reason":"\u001b[2J"}` + "\nline\x1b]0;x\x07\n"))
	f.Add([]byte(strings.Repeat("x\n", 20) + `{"level":"ERROR","msg":"a\nb"}`))
	path := filepath.Join(f.TempDir(), "log")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		h := &Handoff{Output: path}
		why := h.whyNotServing()
		if strings.ContainsFunc(why, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%q: %q", text, why)
		}
	})
}
