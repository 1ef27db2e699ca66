package rackman

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/config"
	"handoff/internal/deploy"
)

// A folder of RackMan's, whatever its files say, becomes a configuration, whose directory is
// the version's, in the folder.
func FuzzFolder(f *testing.F) {
	f.Add([]byte(`{"head": "v1", "versions": ["v1"], "config": {"environment": {"A": 1}, "timeout": 5}}`), []byte(`{"server": "app", "ports": [3000, "3001"], "watch": ["./a"], "environment": {"A": {"b": 1}}, "reload": 1e12}`), "")
	f.Add([]byte(`{"head": "../v1"}`), []byte(`{}`), "")
	f.Add([]byte(`{"head": 1}`), []byte(`{"server": "../../x", "environment": {"version": true}}`), "v1")
	f.Add([]byte(``), []byte(`{"ports": [1e300]}`), "../x")
	dir := f.TempDir()
	for _, v := range []string{"v1", "1", ".deploy-x"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, rack, rackman []byte, fixed string) {
		for name, b := range map[string][]byte{RackFile: rack, VersionFile: rack, "v1/" + File: rackman, "1/" + File: rackman, File: rackman} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{RackFile, VersionFile, File} {
			m, err := Read(filepath.Join(dir, name), fixed)
			if err != nil {
				continue
			}
			rel, err := filepath.Rel(dir, filepath.Dir(m.Path))
			if err != nil || strings.ContainsAny(rel, "/\\") || rel == ".." || name == File && rel != "." || name != File && deploy.CheckName(rel) != nil && !deploy.Unfinished(rel) {
				t.Errorf("%q, %q, %q: reads %s", rack, rackman, fixed, m.Path)
			}
			file, err := config.ParseFile("handoff.toml", m.Text)
			if err != nil && !strings.Contains(string(m.Text), `\u0000`) {
				t.Fatalf("%q, %q, %q: %v\n%s", rack, rackman, fixed, err, m.Text)
			}
			if err == nil && len(file.Command) == 0 {
				t.Errorf("%q: no command", rackman)
			}
		}
	})
}
