package main

import (
	"os"
	"runtime/debug"
	"slices"
	"testing"
)

// Each module of a build is listed, with its checksum, and each embedded file; nothing of
// the list is missing among what the program is said to need.
func TestBill(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.1", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "CGO_ENABLED", Value: "0"}}, Deps: []*debug.Module{
		{Path: "golang.org/x/sys", Version: "v0.1.0", Sum: "h1:x"}, {Path: "old", Version: "v1.0.0", Replace: &debug.Module{Path: "new", Version: "v2.0.0"}}}}
	bom := bill(info, "1.2.3", []file{{"a/b.cjs", []byte("x")}})
	var names []string
	for _, c := range *bom.Components {
		names = append(names, c.Name+"@"+c.Version)
	}
	if want := []string{"std@1.26.1", "golang.org/x/sys@v0.1.0", "new@v2.0.0", "a/b.cjs@1.2.3"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	sum := (*bom.Components)[1].Properties
	hash := (*bom.Components)[3].Hashes
	if sum == nil || (*sum)[0].Value != "h1:x" || hash == nil || (*hash)[0].Value != "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" {
		t.Errorf("%v, %v", sum, hash)
	}
	if needs := *(*bom.Dependencies)[0].Dependencies; len(needs) != len(names) {
		t.Errorf("%q", needs)
	}
	if of := bom.Metadata.Component.Properties; of == nil || len(*of) != 1 || (*of)[0].Value != "abc" {
		t.Errorf("%v", of)
	}
}

// A binary that does not have the files is none of this source.
func TestEmbedded(t *testing.T) {
	path := t.TempDir() + "/handoff"
	os.WriteFile(path, []byte("\x7fELF"), 0o700)
	if files, err := embedded(path); err == nil {
		t.Errorf("%d files", len(files))
	}
}
