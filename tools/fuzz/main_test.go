package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The list is whole: what is found is what the source has, each has a line in the page that
// says what it reads, and the night run has no list of its own.
func TestList(t *testing.T) {
	targets, err := Targets("../..")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, target := range targets {
		found = append(found, target.String())
	}
	var there []string
	files, err := exec.Command("git", "-C", "../..", "ls-files", "-co", "--exclude-standard", "*_test.go").Output()
	if err != nil {
		t.Skip("no git: ", err)
	}
	for _, name := range strings.Fields(string(files)) {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			continue // removed, and not committed
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`).FindAllSubmatch(text, -1) {
			there = append(there, filepath.Dir(name)+" "+string(m[1]))
		}
	}
	slices.Sort(found)
	slices.Sort(there)
	if !slices.Equal(found, there) || len(found) < 15 {
		t.Errorf("found %q, the source has %q", found, there)
	}
	page, err := os.ReadFile("../../docs/internals/fuzzing.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(Fuzz\\w*)` \\| `([^`]*)` \\|").FindAllSubmatch(page, -1) {
		said = append(said, string(m[2])+" "+string(m[1]))
	}
	slices.Sort(said)
	if !slices.Equal(found, said) {
		t.Errorf("docs/internals/fuzzing.md has\n%s\nthe source has\n%s", strings.Join(said, "\n"), strings.Join(found, "\n"))
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil || !bytes.Contains(makefile, []byte("\tgo run ./tools/fuzz -time $(FUZZTIME)")) || bytes.Contains(makefile, []byte("-fuzz Fuzz")) {
		t.Errorf("make fuzz is not this program alone: %v", err)
	}
	if ci, err := os.ReadFile("../../.ci/run"); err != nil || !bytes.Contains(ci, []byte("make fuzz")) {
		t.Errorf("the night run does not fuzz: %v", err)
	}
}

// A corpus comes back from its archive as it was.
func TestCorpus(t *testing.T) {
	t.Chdir(t.TempDir())
	target, cache := Target{"internal/x", "FuzzX"}, t.TempDir()
	inputs := map[string]string{"0123": "go test fuzz v1\n[]byte(\"-- a --\\n\")\n", "4567": "go test fuzz v1\nstring(\"\")\n", "89ab": "go test fuzz v1\n[]byte(\"" + strings.Repeat("x", maxBytes) + "\")\n"}
	if err := os.MkdirAll(target.cached(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range inputs {
		os.WriteFile(filepath.Join(target.cached(cache), name), []byte(text), 0o644)
	}
	if err := target.pack(cache); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if err := target.unpack(again); err != nil {
		t.Fatal(err)
	}
	for name, text := range inputs {
		got, err := os.ReadFile(filepath.Join(target.cached(again), name))
		if large := len(text) > maxBytes; large != os.IsNotExist(err) || !large && string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestProgress(t *testing.T) {
	const out = "fuzz: elapsed: 0s, gathering baseline coverage: 0/2 completed\nfuzz: elapsed: 3s, execs: 100 (33/sec), new interesting: 1 (total: 2)\nfuzz: elapsed: 1m0s, execs: 12345 (205/sec), new interesting: 1 (total: 3)\nPASS\n"
	if n, d := executions(out), elapsed(out, 0); n != 12345 || d != time.Minute {
		t.Errorf("%d in %v", n, d)
	}
}

// A run that Go ends in the middle of an input is none that has found something.
func TestCutOff(t *testing.T) {
	for out, want := range map[string]bool{
		"--- FAIL: FuzzX (100.13s)\n    context deadline exceeded\nFAIL\n":                                           true,
		"--- FAIL: FuzzX (1.1s)\n    x_test.go:1: wrong\n    \n    Failing input written to testdata/fuzz/FuzzX/1\n": false,
		"--- FAIL: FuzzX (1.1s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzX/1":  false,
	} {
		if got := cutOff(out); got != want {
			t.Errorf("%q: %v", out, got)
		}
	}
}
