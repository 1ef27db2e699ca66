package main

import (
	"os"
	"strings"
	"testing"

	"handoff/internal/deploy"
)

// In a deployment, an argument that names none is refused: it was ignored, and the
// deployment here changed.
func TestNoSuchDeployment(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := deploy.Setup(".", ""); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v0", "v1", "src"} {
		if err := os.Mkdir(v, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{"register v0", "switch v0", "register v1", "switch v1"} {
		if _, errs, code := handoff(t, strings.Fields(line)...); code != 0 {
			t.Fatal(line, errs)
		}
	}
	before, _ := os.ReadFile(deploy.File)
	for _, line := range []string{"rollback src", "switch src v0", "deploy src v2", "register src v0", "clean src v1", "versions src", "head src"} {
		if out, errs, code := handoff(t, strings.Fields(line)...); code != 1 || out != "" || !strings.HasPrefix(errs, "handoff: src is not a valid deployment: ") {
			t.Errorf("%s: %d, %q, %q", line, code, out, errs)
		}
	}
	if _, errs, code := handoff(t, "deploy", ".", "v2"); code != 1 || !strings.Contains(errs, "into itself") {
		t.Error(code, errs)
	}
	if after, _ := os.ReadFile(deploy.File); string(after) != string(before) {
		t.Errorf("%s, it was %s", after, before)
	}
}
