package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The database has each report, by its module, with the version in which it is fixed last.
func TestIndex(t *testing.T) {
	osv, db := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"GO-1": `{"id": "GO-1", "modified": "2026-01-01T00:00:00Z", "aliases": ["CVE-1"], "affected": [{"package": {"name": "stdlib"}, "ranges": [{"events": [{"introduced": "0"}, {"fixed": "1.26.9"}, {"introduced": "1.27.0-0"}, {"fixed": "1.27.2"}]}]}, {"package": {"name": "golang.org/x/net"}, "ranges": [{"events": [{"introduced": "0"}]}]}]}`,
		"GO-2": `{"id": "GO-2", "modified": "2026-01-02T00:00:00Z", "affected": [{"package": {"name": "stdlib"}}, {"package": {"name": "stdlib"}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(osv, name+".json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := index(osv, db); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"index/modules.json": `[{"path":"golang.org/x/net","vulns":[{"id":"GO-1","modified":"2026-01-01T00:00:00Z"}]},{"path":"stdlib","vulns":[{"id":"GO-1","modified":"2026-01-01T00:00:00Z","fixed":"1.27.2"},{"id":"GO-2","modified":"2026-01-02T00:00:00Z"}]}]`,
		"index/vulns.json":   `[{"id":"GO-1","modified":"2026-01-01T00:00:00Z","aliases":["CVE-1"]},{"id":"GO-2","modified":"2026-01-02T00:00:00Z"}]`,
		"ID/GO-1.json":       `"CVE-1"`, "index/db.json": `{"modified":"20`,
	} {
		b, err := os.ReadFile(filepath.Join(db, name))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	if err := index(t.TempDir(), db); err == nil {
		t.Error("a database without reports")
	}
}
