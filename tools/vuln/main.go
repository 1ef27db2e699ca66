// Command vuln looks for known vulnerabilities in what handoff is built of, with
// govulncheck. Where vuln.go.dev is not reached, it takes the database from the Go module
// proxy, as the module golang.org/x/vulndb, and puts it into the form that govulncheck reads.
//
//	go run ./tools/vuln
//
// It looks with the Go that releases are built with (tools/release/go.version). The exit code
// is govulncheck's: 3 if handoff calls what is vulnerable.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	govulncheck = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"
	public      = "https://vuln.go.dev"
)

func main() {
	err := run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

func run() error {
	toolchain, err := os.ReadFile("tools/release/go.version")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "vuln-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	db := public
	if client := (&http.Client{Timeout: 10 * time.Second}); !reached(client) {
		version, osv, err := download(work)
		if err != nil {
			return fmt.Errorf("%s is not reached, and the proxy has no database: %w", public, err)
		}
		fmt.Println("database: golang.org/x/vulndb", version)
		if err := index(osv, filepath.Join(work, "db")); err != nil {
			return err
		}
		db = "file://" + filepath.Join(work, "db")
	}
	// The program is built first: "go run" would end with 1, whatever govulncheck ends with.
	install := exec.Command("go", "install", govulncheck)
	install.Env = append(os.Environ(), "GOBIN="+work)
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build govulncheck: %w: %s", err, out)
	}
	check := exec.Command(filepath.Join(work, "govulncheck"), "-tags", "nethttpomithttp2", "-db", db, "./cmd/handoff", "./handoff", "./worker")
	check.Env = append(os.Environ(), "GOTOOLCHAIN="+strings.TrimSpace(string(toolchain)))
	check.Stdout, check.Stderr = os.Stdout, os.Stderr
	return check.Run()
}

func reached(client *http.Client) bool {
	resp, err := client.Get(public + "/index/db.json")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// download gets the database as a module, and returns the folder with its reports.
func download(work string) (version, osv string, err error) {
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte("module x\n"), 0o644); err != nil {
		return "", "", err
	}
	get := exec.Command("go", "mod", "download", "-json", "golang.org/x/vulndb@latest")
	get.Dir = work
	out, err := get.Output()
	if err != nil {
		return "", "", err
	}
	var module struct{ Version, Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", "", err
	}
	return module.Version, filepath.Join(module.Dir, "data", "osv"), nil
}

// report is what is indexed of a report in OSV's form.
type report struct {
	ID       string   `json:"id"`
	Modified string   `json:"modified"`
	Aliases  []string `json:"aliases,omitempty"`
}

type vuln struct {
	ID       string `json:"id"`
	Modified string `json:"modified"`
	Fixed    string `json:"fixed,omitempty"`
}

type module struct {
	Path  string `json:"path"`
	Vulns []vuln `json:"vulns"`
}

// index writes a database of govulncheck's (https://go.dev/doc/security/vuln/database):
// ID/GO-….json, index/db.json, index/modules.json, index/vulns.json.
func index(osv, db string) error {
	paths, err := filepath.Glob(filepath.Join(osv, "*.json"))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("no reports in %s: %w", osv, err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(db, "ID"), 0o755), os.MkdirAll(filepath.Join(db, "index"), 0o755)); err != nil {
		return err
	}
	var all []report
	modules := map[string]*module{}
	var order []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r report
		var in struct {
			Affected []struct {
				Package struct{ Name string }
				Ranges  []struct{ Events []struct{ Fixed string } }
			}
		}
		if err := errors.Join(json.Unmarshal(b, &r), json.Unmarshal(b, &in), os.WriteFile(filepath.Join(db, "ID", filepath.Base(path)), b, 0o644)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
		for _, a := range in.Affected {
			m := modules[a.Package.Name]
			if m == nil {
				m = &module{Path: a.Package.Name}
				modules[m.Path], order = m, append(order, m.Path)
			}
			if slices.ContainsFunc(m.Vulns, func(v vuln) bool { return v.ID == r.ID }) {
				continue
			}
			v := vuln{ID: r.ID, Modified: r.Modified}
			for _, ranges := range a.Ranges {
				for _, e := range ranges.Events {
					if e.Fixed != "" {
						v.Fixed = e.Fixed // the last one: nothing newer is affected
					}
				}
			}
			m.Vulns = append(m.Vulns, v)
		}
	}
	slices.Sort(order)
	list := make([]*module, len(order))
	for i, path := range order {
		list[i] = modules[path]
	}
	for name, v := range map[string]any{"db": map[string]any{"modified": time.Now().UTC().Format(time.RFC3339)}, "vulns": all, "modules": list} {
		b, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(db, "index", name+".json"), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
