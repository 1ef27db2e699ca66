package snapshot

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The file that says who the workers were, of a handoff before: whatever is in it, only what
// belongs to this start of the machine counts, and a pid that is none is nobody.
func FuzzWorkersFile(f *testing.F) {
	f.Add([]byte(`{"version": 1, "service": "web", "boot": "` + bootID() + `", "workers": [{"id": 1, "slot": 0, "gen": 1, "pid": 1, "start": 1}, {"pid": -1}, {"pid": 0, "notify": "@x"}]}`))
	f.Add([]byte(`{"version": 2}`))
	f.Add([]byte(`{"version": 1, "boot": "", "workers": [{"pid": 99999999999}]}`))
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := readWorkers(path)
		if err != nil {
			return
		}
		if w.Version != 1 || len(w.Workers) > 0 && w.Boot != bootID() {
			t.Errorf("%q: %+v", b, w)
		}
		for _, i := range w.Workers[:min(len(w.Workers), 100)] {
			if i.alive() && (i.PID <= 0 || i.Start == 0) {
				t.Errorf("%q: %+v is alive", b, i)
			}
		}
	})
}

// A text of any bytes is in the record as it was.
func FuzzRecordText(f *testing.F) {
	f.Add("a\xffb")
	f.Add(`{"base64": "QQ=="}`)
	f.Add("\u2028\x00")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := json.Marshal([]Text{Text(s)})
		var again []Text
		if err != nil || json.Unmarshal(b, &again) != nil || len(again) != 1 || string(again[0]) != s {
			t.Errorf("%q: %s, %q, %v", s, b, again, err)
		}
	})
}

// Who a worker is by its environment, which it may have written itself.
func FuzzIdentity(f *testing.F) {
	f.Add([]byte("HANDOFF_WORKER=1\x00WORKER_ID=0\x00HANDOFF_GENERATION=1\x00NOTIFY_SOCKET=/run/x"))
	f.Add([]byte("HANDOFF_WORKER=-1\x00WORKER_ID=99999999999999999999\x00HANDOFF_GENERATION=+1"))
	f.Fuzz(func(t *testing.T, env []byte) {
		var all []string
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			all = append(all, string(kv))
		}
		i := byEnviron(all)
		if i.Start != 0 || i.PID != 0 {
			t.Errorf("%q: %+v", env, i)
		}
	})
}
