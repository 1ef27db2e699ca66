package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The binary of a release is the same bytes in whatever folder it is built, names the commit
// that it is of, and its SBOM has every module of it and every file that is embedded.
func TestProvenance(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("git", "-C", "..", "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("not a repository: %s", out)
	}
	dir := t.TempDir()
	var files [2]string
	var head string
	for i, name := range []string{"one", "another/longer folder"} {
		tree := filepath.Join(dir, name)
		// What is there, committed: the test is of a tree, not of the repository's state.
		for _, line := range []string{
			`mkdir -p "$1" && git ls-files -co --exclude-standard -z | (xargs -0 ls -d 2>/dev/null || true) | tar -cf - -T - | tar -xf - -C "$1"`,
			`cd "$1" && git init -q && git add -A && GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z git -c user.name=x -c user.email=x@x -c commit.gpgsign=false commit -qm x`,
		} {
			cmd := exec.Command("sh", "-c", line, "sh", tree)
			cmd.Dir = ".."
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		out, err := exec.Command("git", "-C", tree, "rev-parse", "HEAD").Output()
		if err != nil {
			t.Fatal(err)
		}
		head = strings.TrimSpace(string(out))
		files[i] = filepath.Join(tree, "bin", "handoff") // ignored: the tree is not changed by it
		cmd := exec.Command("tools/release/binary.sh", "amd64", files[i])
		cmd.Dir = tree
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	one, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if another, err := os.ReadFile(files[1]); err != nil || !bytes.Equal(one, another) {
		t.Errorf("two builds differ: %v", err)
	}
	if bytes.Contains(one, []byte(dir)) {
		t.Errorf("it has %s in it", dir)
	}
	built, err := exec.Command("go", "version", "-m", files[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\tbuild\tvcs.revision=" + head + "\n", "\tbuild\tvcs.modified=false\n", "\tbuild\t-trimpath=true\n", "\tbuild\tCGO_ENABLED=0\n"} {
		if !strings.Contains(string(built), want) {
			t.Errorf("no %q in\n%s", want, built)
		}
	}
	bill(t, files[0], string(built))
}

// bill compares the SBOM of a binary with its build information, and with what the source
// embeds.
func bill(t *testing.T, binary, built string) {
	t.Helper()
	cmd := exec.Command("go", "run", "./tools/release/sbom", "-version", "1.2.3", binary)
	cmd.Dir = ".."
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	var bom struct {
		Components []struct{ Type, Name, Version string }
	}
	if err := json.Unmarshal(out, &bom); err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	for _, c := range bom.Components {
		has[c.Name] = c.Version
	}
	modules := 0
	for line := range strings.Lines(built) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "dep" {
			if modules++; has[f[1]] != f[2] {
				t.Errorf("%s %s is in the binary, the SBOM has %q", f[1], f[2], has[f[1]])
			}
		}
	}
	for _, name := range []string{"sdk/node/preload.cjs", "internal/hooks/rackhooks.cjs", "std"} {
		if has[name] == "" {
			t.Errorf("the SBOM has no %s", name)
		}
	}
	if modules < 10 {
		t.Errorf("%d modules in\n%s", modules, built)
	}
}
