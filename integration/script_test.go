package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The whole command line, as users type it: testdata/script/*.txtar. Besides
// testscript's own words there are
//
//	code N PROGRAM ARG...   runs a program, which must end with that exit code
//	port NAME               puts a free port into a variable
//	lines N                 the last stdout or stderr has so many lines
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(env.WorkDir, ".run"))
			env.Setenv("HANDOFF_STATE_DIR", os.Getenv("HANDOFF_STATE_DIR"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: code N program args")
				}
				want, _ := strconv.Atoi(args[0])
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var ee *exec.ExitError
					if !errors.As(err, &ee) {
						ts.Fatalf("%v", err)
					}
					got = ee.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"port": func(ts *testscript.TestScript, neg bool, args []string) { ts.Setenv(args[0], freePort(t)) },
			"lines": func(ts *testscript.TestScript, neg bool, args []string) {
				want, _ := strconv.Atoi(args[0])
				text := ts.ReadFile("stdout") + ts.ReadFile("stderr")
				if n := strings.Count(text, "\n"); n != want {
					ts.Fatalf("%d lines, want %d:\n%s", n, want, text)
				}
			},
		},
	})
}

// Every command has a man page, with its options and the date of the source.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "-tags", "man", "handoff/cmd/handoff", "man", "--dir", dir)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600") // 2026-01-01
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for page, word := range map[string]string{"handoff.1": "listening sockets", "handoff-top.1": "Jan 2026", "handoff-run.1": "ready-timeout", "handoff-reload.1": "no-wait"} {
		if text := read(t, filepath.Join(dir, page)); !strings.Contains(text, word) && !strings.Contains(text, strings.ReplaceAll(word, "-", `\-`)) {
			t.Errorf("%s has no %q", page, word)
		}
	}
}
