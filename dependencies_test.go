package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// reach are packages of the standard library by which a module gets further than its
// arguments.
var reach = []string{"net", "net/http", "os", "os/exec", "plugin", "syscall", "unsafe", "C"}

// docs/internals/dependencies.md has each module of go.mod, in its version; which are in the
// binary; and what these can reach, by what the packages that are compiled import. A module
// that begins to import net is a line of the diff.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllSubmatch(mod, -1) {
		versions[string(m[1])] = string(m[2])
	}
	cmd := exec.Command("go", "list", "-deps", "-tags", "nethttpomithttp2", "-json=Imports,Module", "./cmd/handoff")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	reaches := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Imports []string
			Module  *struct{ Path string }
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || versions[p.Module.Path] == "" {
			continue
		}
		all := reaches[p.Module.Path]
		for _, i := range p.Imports {
			if slices.Contains(reach, i) && !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
		reaches[p.Module.Path] = all
	}
	page, err := os.ReadFile("docs/internals/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\S+) \\| ([^|]*) \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		path, version, said := m[1], m[2], strings.Trim(m[4], " ")
		if versions[path] != version {
			t.Errorf("the page has %s %s, go.mod %q", path, version, versions[path])
		}
		delete(versions, path)
		is, ok := reaches[path]
		slices.Sort(is)
		want := strings.Join(is, ", ")
		switch {
		case !ok:
			want = "not in the binary"
		case want == "":
			want = "nothing"
		}
		if said != want {
			t.Errorf("%s: the page says that it can reach %q; it is %q", path, said, want)
		}
	}
	for path, version := range versions {
		t.Errorf("docs/internals/dependencies.md has no %s %s", path, version)
	}
}
