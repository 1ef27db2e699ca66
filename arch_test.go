// Package arch holds the rules of the architecture as tests, each with its
// reason.
package arch

import (
	"bytes"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// file is one Go source file that is not a test.
type file struct {
	path    string
	pkg     string // its folder
	imports []string
	ast     *ast.File
}

func sources(t *testing.T) []file {
	t.Helper()
	var files []file
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		if ok, err := build.Default.MatchFile(filepath.Split(p)); !ok || err != nil {
			return err
		}
		parsed, err := parser.ParseFile(set, p, nil, 0)
		if err != nil {
			return err
		}
		f := file{path: p, pkg: path.Dir(p), ast: parsed}
		for _, i := range parsed.Imports {
			f.imports = append(f.imports, strings.Trim(i.Path.Value, `"`))
		}
		files = append(files, f)
		return nil
	})
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

func TestImports(t *testing.T) {
	for _, rule := range []struct {
		pkg    string // and below
		never  []string
		only   []string // if set, nothing else
		but    []string // in spite of never
		reason string
	}{
		{pkg: "master/fleet", only: []string{"fmt", "time", "slices", "handoff/internal/jitter"},
			reason: "the decision is pure: no I/O, no clock, no goroutine, so that a million steps can be tested in a second"},
		{pkg: "internal/jitter", only: []string{},
			reason: "pure decisions use it"},
		{pkg: "master/readiness", only: []string{"maps", "net/netip", "slices", "strconv", "strings", "time"},
			reason: "who is ready is decided without I/O or a clock, and tested by transcripts"},
		{pkg: "master/health", only: []string{"fmt", "slices", "time"},
			reason: "who is well is decided without I/O or a clock, and tested by transcripts"},
		{pkg: "internal/health", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "os/exec", "log/slog"},
			reason: "it asks over connections that it is given, and knows nothing of what follows"},
		{pkg: "master/reload", only: []string{"time", "fmt"},
			reason: "what follows an order to reload is decided without I/O or a clock, and tested by transcripts"},
		{pkg: "master/snapshot", never: []string{"handoff/master", "handoff/internal/nodeipc", "handoff/internal/keeper", "os/exec", "net/http"},
			reason: "a record is plain data: rooms give their state, and take it back"},
		{pkg: "master/sequence", only: []string{"slices", "time", "handoff/internal/api", "handoff/internal/sdnotify", "handoff/master/fleet", "handoff/master/reload", "handoff/master/snapshot"},
			reason: "in which order decisions are written down and carried out is tried by a simulator: what is done is behind its World"},
		{pkg: "master/launch", never: []string{"handoff/handoff", "handoff/internal/nodeipc", "handoff/internal/keeper*", "os/exec", "net", "net/http", "log/slog"},
			reason: "it says with what a worker is started, and starts nothing"},
		{pkg: "master/recycle", only: []string{"fmt", "time", "maps", "slices", "strconv", "strings", "handoff/internal/jitter"},
			reason: "samples in, verdicts out"},
		{pkg: "master/listeners", never: []string{"handoff/master", "handoff/master/*", "handoff/internal/[^cl]*", "handoff/internal/c[^m]*", "os/exec", "net/http"},
			reason: "it knows addresses and who has a share of them by a number: nothing of processes (but who listens, for an error), protocols, or who keeps its sockets"},
		{pkg: "master/contract", never: []string{"handoff/handoff", "handoff/internal/config", "os/exec", "os/signal", "net/http", "log/slog"},
			reason: "a contract reaches the loop by its Host alone, and tells it facts: the loop has the words, and what follows"},
		{pkg: "master/contract/node", never: []string{"handoff/internal/bindintercept"},
			reason: "contracts know nothing of each other"},
		{pkg: "master/contract/bind", never: []string{"handoff/internal/nodeipc", "encoding/json"},
			reason: "contracts know nothing of each other"},
		{pkg: "internal/bindintercept", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "os/exec", "net/http", "log/slog"},
			reason: "it stops calls and passes answers on; which, is the caller's"},
		{pkg: "handoff", never: []string{"os/exec", "os/signal", "net/http", "handoff/master", "handoff/internal/*", "handoff/worker"},
			reason: "a library: sockets know nothing of processes or protocols, and any program may use it"},
		{pkg: "internal/nodeipc", never: []string{"os", "net", "os/exec", "golang.org/x/sys/unix", "handoff/*"},
			reason: "the protocol is data in, data out"},
		{pkg: "master", never: []string{"handoff/worker", "net/http", "github.com/spf13/cobra", "handoff/internal/config", "handoff/internal/admin"},
			reason: "the master does not know how it was configured, and stays small"},
		{pkg: "internal/keeper", never: []string{"handoff/master", "handoff/internal/config", "net/http", "encoding/json"},
			reason: "it must not fail: it does nothing but hold, start, forward and reap"},
		{pkg: "internal/keeper/fdstore", never: []string{"handoff/master", "handoff/master/*", "os/signal", "os/exec", "log/slog"},
			reason: "it is one protocol, both ends of it: it knows neither what masters do nor how a keeper supervises them"},
		{pkg: "internal/sdnotify", never: []string{"handoff/master", "handoff/handoff", "handoff/worker", "handoff/internal/linux", "log/slog", "os/exec"},
			reason: "workers in other people's programs speak by it: it brings the standard library and x/sys, and no more"},
		{pkg: "worker", never: []string{"handoff/master", "handoff/handoff", "handoff/internal/config", "github.com/*/*"},
			reason: "it runs inside other people's programs: it costs them x/sys, and what imports no more than that"},
		{pkg: "sdk/quicgo", never: []string{"handoff/master", "handoff/master/*", "handoff/internal/*"},
			reason: "it runs inside other people's programs, as worker does; what it adds is quic-go, for which it is a module of its own"},
		{pkg: "master/process", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "handoff/worker", "handoff/internal/[^lt]*", "handoff/internal/l[^i]*", "net", "net/http", "log/slog"},
			reason: "it starts and ends programs: which descriptors they are given, and what they mean, is the caller's"},
		{pkg: "master/descendants", only: []string{"errors", "fmt", "os", "slices", "strconv", "strings", "time", "golang.org/x/sys/unix", "handoff/internal/linux"},
			reason: "it finds and signals processes; when, and what is said of it, is the caller's"},
		{pkg: "internal/linux", only: []string{"errors", "fmt", "io", "io/fs", "iter", "math", "os", "path/filepath", "runtime", "strconv", "strings", "syscall", "time", "unsafe", "golang.org/x/sys/unix"},
			reason: "it asks the kernel, and knows nothing of who asks"},
		{pkg: "internal/repeat", only: []string{"bytes", "io", "regexp", "slices", "strconv", "strings", "sync"},
			reason: "it compares lines, and knows nothing of who writes them, or why"},
		{pkg: "internal/listener", only: []string{"fmt", "os", "os/user", "path/filepath", "regexp", "slices", "strconv", "strings", "unicode", "unicode/utf8", "handoff/internal/linux"},
			reason: "it says who listens, for an error of whoever is asked to"},
		{pkg: "internal/cmsg", only: []string{"errors", "fmt", "os", "syscall", "time", "golang.org/x/sys/unix"},
			reason: "it passes descriptors, and knows no protocol; the SDK has it inside other people's programs"},
		{pkg: "internal/takeover", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "handoff/internal/[^clr]*", "os/exec", "log/slog", "net/http"},
			reason: "it finds connections and waits for who closes them: what is answered on them is internal/relay's, whose they are the caller's"},
		{pkg: "internal/listenfds", only: []string{"fmt", "os", "strconv", "strings", "golang.org/x/sys/unix", "handoff/internal/cmsg"},
			reason: "the SDK has it inside other people's programs"},
		{pkg: "internal/watch", never: []string{"handoff/*", "handoff/internal/*"},
			reason: "it knows files, and nothing of what their change means"},
		{pkg: "internal/deploy", never: []string{"handoff/master", "handoff/internal/*", "handoff/handoff", "net/http", "os/exec"},
			reason: "it keeps versions in folders, and knows nothing of who runs them"},
		{pkg: "internal/migrate", never: []string{"handoff/master*", "handoff/internal/service", "handoff/internal/admin", "net/http", "github.com/spf13/*"},
			reason: "it turns another tool's file into ours: files in, text out"},
		{pkg: "internal/config", never: []string{"handoff/master", "handoff/master/fleet", "handoff/internal/migrate*", "handoff/internal/deploy", "net/http"},
			reason: "it knows what can be said of a service, not who runs it, nor in which other files it is said"},
		{pkg: "internal/service", never: []string{"os/exec", "os/signal", "net", "net/http", "handoff/internal/admin", "handoff/internal/upgrade", "github.com/spf13/cobra"},
			reason: "it makes what a master runs by of a configuration, and starts nothing: tests are tables"},
		{pkg: "internal/doctor", never: []string{"handoff/master*", "handoff/internal/config", "net/http", "github.com/spf13/*"},
			reason: "it tries the machine, whatever would run on it; a command prints what it finds"},
		{pkg: "internal/load", never: []string{"handoff/*", "handoff/internal/*"},
			reason: "it is a client, of any server"},
		{pkg: "internal/events", only: []string{"slices"},
			reason: "it is names: whoever logs imports it"},
		{pkg: "internal/api", only: []string{"fmt", "maps", "slices", "strconv", "strings", "time"},
			reason: "it is the types that server and clients share: plain data"},
		{pkg: "internal/admin", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "handoff/internal/config"},
			reason: "it knows a service by its interface Control and by the types of internal/api; its client is part of other programs"},
		{pkg: "internal/top", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff"},
			reason: "it is a client of the control API, like any other"},
		{pkg: "internal/prove", never: []string{"handoff/master", "handoff/master/*", "handoff/handoff", "handoff/internal/config", "github.com/spf13/cobra"},
			reason: "it disturbs and counts, and knows a subject only by its interface, or by its control socket"},
		{pkg: "internal/hooks", never: []string{"handoff/master", "handoff/internal/*", "net/http"}, but: []string{"handoff/internal/events", "handoff/internal/linux"},
			reason: "it runs commands at events, and knows nothing of who has them"},
		{pkg: "internal/capture", never: []string{"handoff/master", "handoff/internal/*", "net/http"}, but: []string{"handoff/internal/linux"},
			reason: "it makes lines of bytes"},
		{pkg: "internal/metrics", never: []string{"handoff/master", "net/http", "os", "github.com/prometheus/*"},
			reason: "it writes what it is given; the client library would double the master's memory"},
		{pkg: "integration", never: []string{"handoff/master", "handoff/handoff", "handoff/internal/config"},
			reason: "it speaks to processes, as users do"},
	} {
		for _, f := range sources(t) {
			if f.pkg != rule.pkg && !strings.HasPrefix(f.pkg, rule.pkg+"/") || rule.pkg == "master" && f.pkg != "master" {
				continue
			}
			for _, i := range f.imports {
				if rule.only != nil && !slices.Contains(rule.only, i) {
					t.Errorf("%s imports %s; only %v: %s", f.path, i, rule.only, rule.reason)
				}
				for _, n := range rule.never {
					if ok, _ := path.Match(n, i); ok && !slices.Contains(rule.but, i) {
						t.Errorf("%s imports %s: %s", f.path, i, rule.reason)
					}
				}
			}
		}
	}
}

// One file each may touch signals and look programs up: what a reader must check
// is in one place.
func TestOneFileEach(t *testing.T) {
	for _, name := range []string{"os/signal", "os/exec"} {
		var users []string
		for _, f := range sources(t) {
			if f.pkg == "master" && slices.Contains(f.imports, name) {
				users = append(users, f.path)
			}
		}
		if len(users) > 1 {
			t.Errorf("%s is imported by %v; one file of master may", name, users)
		}
	}
}

// A mutex in the master means that two goroutines own something.
func TestNoMutexInMaster(t *testing.T) {
	for _, f := range sources(t) {
		if (f.pkg == "master" || strings.HasPrefix(f.pkg, "master/")) && slices.Contains(f.imports, "sync") {
			t.Errorf("%s imports sync: one goroutine owns the state, everything else posts to it", f.path)
		}
	}
}

// No package-level mutable state, and no init: what a package does begins when
// it is called. The stamps of the linker and embedded files are set once.
func TestNoGlobals(t *testing.T) {
	allowed := map[string]string{
		"cmd/handoff/main.go": "version commit",
		"sdk/node/node.go":    "preload",

		"internal/bindprop/build.go": "source",

		"internal/hooks/script.go": "rackhooks",
	}
	for _, f := range sources(t) {
		if f.pkg == "bench" || strings.HasPrefix(f.pkg, "bench/") || strings.HasPrefix(f.pkg, "tools/") {
			continue // flags of a command of its own
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s has an init", f.path)
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					v := spec.(*ast.ValueSpec)
					for _, n := range v.Names {
						if n.Name != "_" && !fixed(v) && !strings.Contains(" "+allowed[f.path]+" ", " "+n.Name+" ") {
							t.Errorf("%s: var %s is package-level state", f.path, n.Name)
						}
					}
				}
			}
		}
	}
}

// fixed tells whether a variable is a constant that Go cannot write as one: an
// error, a table.
func fixed(v *ast.ValueSpec) bool {
	if len(v.Values) != 1 {
		return false
	}
	switch x := v.Values[0].(type) {
	case *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		if s, ok := x.Fun.(*ast.SelectorExpr); ok {
			return s.Sel.Name == "New" && s.X.(*ast.Ident).Name == "errors"
		}
	}
	return false
}

// Packages are named for what they are.
func TestNames(t *testing.T) {
	for _, f := range sources(t) {
		for _, bad := range []string{"utils", "util", "helpers", "common", "misc"} {
			if path.Base(f.pkg) == bad {
				t.Errorf("%s: a package named for nothing", f.pkg)
			}
		}
	}
}

// The type that knows everything began as "the glue". Master is the loop: what it owns
// are rooms.
func TestMasterIsTheLoop(t *testing.T) {
	const maxFields, maxLines = 15, 3460
	lines := 0
	for _, f := range sources(t) {
		if f.pkg != "master" {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		lines += bytes.Count(b, []byte("\n"))
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != "Master" {
				return true
			}
			fields := 0
			for _, field := range spec.Type.(*ast.StructType).Fields.List {
				fields += max(1, len(field.Names))
			}
			if fields > maxFields {
				t.Errorf("Master has %d fields, more than %d: a new one belongs to a room", fields, maxFields)
			}
			return false
		})
	}
	if lines > maxLines {
		t.Errorf("package master has %d lines, more than %d: what decides or owns something is a room of its own", lines, maxLines)
	}
}

// A room knows nothing of the others: the loop takes from one and gives to another.
func TestRoomsKnowNothingOfEachOther(t *testing.T) {
	may := map[string][]string{
		"master/contract":      {"master/listeners"},                    // a session takes leases from the table
		"master/contract/node": {"master/contract", "master/listeners"}, // through the seam
		"master/contract/bind": {"master/contract", "master/listeners"},
		"master/snapshot":      {"master/fleet", "master/listeners", "master/descendants", "master/readiness", "master/takeover"}, // the types of their states
		"master/launch":        {"master/fleet", "master/process", "master/snapshot"},                                             // whose generations, how they are started, what of it is recorded
		"master/outlook":       {"master/fleet"},                                                                                  // its plans
		"master/sequence":      {"master/fleet", "master/reload", "master/snapshot"},                                              // whose decisions it carries out, in order
		"master/unheld":        {"master/listeners", "master/descendants"},                                                        // what processes have of sockets
		"master/serving":       {"master/listeners", "master/readiness"},                                                          // what one knows, in the other's words
		// What the tests of both contracts share: a loop.
		"master/contract/contracttest": {"master/contract", "master/listeners"},
	}
	for _, f := range sources(t) {
		if !strings.HasPrefix(f.pkg, "master/") {
			continue
		}
		for _, i := range f.imports {
			if room, ok := strings.CutPrefix(i, "handoff/"); ok && strings.HasPrefix(room, "master") && room != f.pkg && !slices.Contains(may[f.pkg], room) {
				t.Errorf("%s imports %s: rooms know nothing of each other, nor of the loop", f.path, i)
			}
		}
	}
}
