package node

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// What is published on npm runs nothing when it is installed, and brings nothing along: no
// scripts, no dependencies but the packages with the binary, of the same version.
func TestPublishedPackages(t *testing.T) {
	type manifest struct {
		Name, Version        string
		Scripts              map[string]string
		Dependencies         map[string]string
		PeerDependencies     map[string]string
		BundleDependencies   any
		BundledDependencies  any
		OptionalDependencies map[string]string
		Gypfile              any
		Files                []string
	}
	text, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	build, err := os.ReadFile("../../tools/npm/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(?s)<<JSON\n(.*?)\nJSON\n`).FindAllSubmatch(build, -1)
	if len(made) != 1 {
		t.Fatalf("%d manifests in tools/npm/build.sh", len(made))
	}
	version := ""
	for i, text := range [][]byte{text, made[0][1]} {
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if len(m.Scripts) > 0 || len(m.Dependencies) > 0 || len(m.PeerDependencies) > 0 || m.BundleDependencies != nil || m.BundledDependencies != nil || m.Gypfile != nil || len(m.Files) == 0 {
			t.Errorf("%s: %+v", m.Name, m)
		}
		if i == 0 {
			version = m.Version
		} else if len(m.OptionalDependencies) > 0 {
			t.Errorf("%s: %v", m.Name, m.OptionalDependencies)
		}
		for name, want := range m.OptionalDependencies {
			if !strings.HasPrefix(name, "@handoff/linux-") || want != version {
				t.Errorf("%s of %s, in version %s", name, want, version)
			}
		}
		for _, f := range m.Files { // npm runs node-gyp for a package with one
			if strings.Contains(f, "binding.gyp") {
				t.Errorf("%s has %s", m.Name, f)
			}
		}
	}
	if _, err := os.Stat("binding.gyp"); err == nil {
		t.Error("binding.gyp: npm would build it")
	}
}
