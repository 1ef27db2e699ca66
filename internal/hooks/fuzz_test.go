package hooks

import (
	"strings"
	"testing"
)

// What an event gives a hook in its environment is handoff's own names, with a text that
// can be passed, whatever a worker has written into it.
func FuzzVariables(f *testing.F) {
	f.Add([]byte(`{"event": "worker.crashed", "slot": 1, "reason": "a\u0000b\nPATH=/x", "ok": true, "n": 1e400, "a-b": "c", "x=y": "z", "k\u0000": "v", "": ""}`))
	f.Add([]byte(`{"event": {"a": 1}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, kv := range variables(event{"worker.crashed", line}) {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || !strings.HasPrefix(name, "HANDOFF_") || strings.ContainsAny(name, " \n\"'`$;") || strings.ContainsRune(kv, 0) {
				t.Errorf("%q: %q", line, kv)
			}
		}
	})
}
