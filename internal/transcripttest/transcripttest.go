// Package transcripttest tests pure decisions by transcripts: files in testdata with a
// line for each event, and what follows indented below.
package transcripttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Run replays each testdata/*.txt, of which there are at least so many, and compares the
// result with the file; with update it rewrites the file. The diff is the review.
func Run(t *testing.T, least int, update bool, replay func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < least {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			switch now := replay(t, string(old)); {
			case !update && now != string(old):
				t.Errorf("%s differs; -update rewrites it. Now:\n%s", file, now)
			case update:
				if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
