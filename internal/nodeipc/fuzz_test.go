package nodeipc

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// What is sent to a worker is lines: a message of a client of the API, which may be any
// JSON, is one line, and none that Node itself handles; nor is that of --drain-message.
func FuzzSend(f *testing.F) {
	f.Add([]byte(`{"cmd": "x", "a": [1]}`), "shutdown", 3)
	f.Add([]byte("\"a\\u2028\"\n"), "a\nb\xff", -1)
	f.Add([]byte(`{"cmd": "NODE_CLUSTER"}`), "", 0)
	f.Add([]byte(`{"CMD": "NODE_HANDLE"}`), "", 0)
	f.Add([]byte(`{"cmd": "x", "cmd": "NODE_HANDLE"}`), "", 0)
	f.Add([]byte(`{"cmd": "NODE_HANDLE", "CMD": "x"}`), "", 0)
	f.Fuzz(func(t *testing.T, message []byte, drain string, seq int) {
		if line, err := Program(message); err == nil {
			if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' || !json.Valid(line) {
				t.Errorf("%q: %q", message, line)
			}
			var all map[string]any // as JavaScript reads it: the last of a key counts, and letters' case does
			if json.Unmarshal(line, &all) == nil {
				if cmd, _ := all["cmd"].(string); strings.HasPrefix(cmd, "NODE_") {
					t.Errorf("%q is Node's", message)
				}
			}
		}
		for line := range bytes.Lines(Drain(seq, drain)) {
			if !json.Valid(line) || line[len(line)-1] != '\n' {
				t.Errorf("%q: %q", drain, line)
			}
		}
	})
}
