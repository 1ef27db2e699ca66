// Command sbom writes what a handoff is made of as CycloneDX JSON: the Go modules of its
// build information, and the files that are embedded in it, which must be those of this
// source.
//
//	go run ./tools/release/sbom -version 1.2.3 BINARY > handoff.cdx.json
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	version := flag.String("version", "", "of the program")
	flag.Parse()
	if err := run(flag.Arg(0), *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	files, err := embedded(path)
	if err != nil {
		return err
	}
	return cdx.NewBOMEncoder(os.Stdout, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bill(info, version, files))
}

// file is one that is embedded.
type file struct {
	name string // in the source
	text []byte
}

// embedded lists the files that are embedded into handoff, and looks whether a binary has
// them as they are.
func embedded(binary string) (files []file, err error) {
	const form = `{{range .EmbedFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}"+form+"{{end}}{{end}}", "handoff/cmd/handoff").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list embedded files: %w", err)
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "handoff").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot find the source: %w", err)
	}
	image, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	for path := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(strings.TrimSpace(string(root)), path)
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(image, text) {
			return nil, fmt.Errorf("%s does not have %s as it is in this source", binary, name)
		}
		files = append(files, file{name, text})
	}
	return files, nil
}

// bill lists all components.
func bill(info *debug.BuildInfo, version string, files []file) *cdx.BOM {
	bom := cdx.NewBOM()
	main := cdx.Component{Type: cdx.ComponentTypeApplication, BOMRef: "handoff", Name: "handoff", Version: version, Licenses: &cdx.Licenses{{License: &cdx.License{ID: "MIT"}}}}
	var built []cdx.Property
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "vcs.") || s.Key == "-tags" || s.Key == "GOARCH" {
			built = append(built, cdx.Property{Name: "build:" + s.Key, Value: s.Value})
		}
	}
	if len(built) > 0 {
		main.Properties = &built
	}
	bom.Metadata = &cdx.Metadata{Component: &main}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{{Type: cdx.ComponentTypeLibrary, BOMRef: "std", Name: "std", Version: goVersion, PackageURL: "pkg:golang/std@" + goVersion}}
	needs := []string{"std"}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		c := cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: url, Name: m.Path, Version: m.Version, PackageURL: url}
		if m.Sum != "" { // as go.sum has it
			c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.Sum}}
		}
		components = append(components, c)
		needs = append(needs, url)
	}
	for _, f := range files {
		c := cdx.Component{Type: cdx.ComponentTypeFile, BOMRef: "file:" + f.name, Name: f.name, Version: version,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(f.text))}}}
		components = append(components, c)
		needs = append(needs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: "handoff", Dependencies: &needs}}
	return bom
}
