package main

import (
	"bytes"
	"testing"
	"unicode"
)

// Lines of the log, which have what workers have written in them, printed for a terminal:
// `handoff events`, and rackman's words.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"Worker crashed","slot":1,"pid":12,"generation":2,"reason":"exit code 1","stderr":"a\u001b[2J\n\u009bb"}`))
	f.Add([]byte(`{"event":"cluster.failed","msg":"\u001b]0;x\u0007"}`))
	f.Add([]byte(`{"event":"cluster.changed","file":"a\u001b[2J.js"}`))
	f.Add([]byte(`{"event":"worker.ready","worker":1,"port":3000,"time":"9999-12-31T23:59:59Z","level":"\u001b[H"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var out bytes.Buffer
		printEvent(&out, line)
		rackmanLines(&out, &out, 1, false)(line)
		if bytes.ContainsFunc(out.Bytes(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%q is printed as %q", line, out.Bytes())
		}
	})
}
