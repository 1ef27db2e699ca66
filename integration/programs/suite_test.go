// Package programs runs real programs, as they are, under a real handoff, reloads them under
// strict load, and counts what their clients lose. It makes the table of docs/programs.md.
//
//	go test ./integration/programs                                       a short run of what is installed, as CI does
//	go test ./integration/programs -run 'TestPrograms/HAProxy' -long -v  one program
//	go test ./integration/programs -long -install -table -timeout 3h     all, and docs/programs.md
package programs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	long    = flag.Bool("long", false, "20 reloads for new connections, 20 for kept ones, of every program")
	install = flag.Bool("install", false, "fetch what is missing: Debian's packages, npm's and Go's")
	table   = flag.Bool("table", false, "write the rows that run into docs/programs.md")
	reloads = flag.Int("reloads", 20, "how many with -long, under new connections, and again under kept ones")
	rate    = flag.Float64("rate", 0, "HTTP requests a second of clients that do not pause, for a machine that others use; 0: as many as are answered")
)

// kind is what a program's address is.
type kind string

const (
	tcp  kind = "tcp"
	path kind = "unix"
	udp  kind = "udp"
)

// row is a program, and how it is started and asked. In args, files, env and flags %DIR% is
// its folder, %PORT% its port, %SOCK% its path, %CACHE% where -install puts things.
type row struct {
	kind   kind
	name   string
	needs  []string // commands, or files (with a slash), without which the row is skipped
	from   []string // what -install fetches: apt:PACKAGE, npm:NAME@VERSION, go:PATH@VERSION
	build  []string // a command, run once in %CACHE%, that makes the last of needs
	files  map[string]string
	args   []string
	env    []string
	bare   []string // variables that handoff adds, for the bare program
	flags  []string // options that handoff needs for it
	asks   asks     // how it is asked; nil: HTTP
	behind string   // a real nginx is before it, and speaks http (a path: that is the default), fastcgi or uwsgi
	pkg    string   // a package in testdata/any that is built as %DIR%/program
	drain  string   // what ends the bare program gracefully, TERM by default
	slow   bool     // it boots for seconds: fewer reloads
	// limit is why requests on new connections may be lost: the program's own doing.
	limit   string
	note    string
	getOnly bool // it has nothing for a POST
	short   bool // CI runs it
}

func rows() []row {
	return slices.Concat(pythonRows, rubyRows, phpRows, proxyRows, javaScriptRows, otherRows, pathRows, udpRows)
}

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "handoff-programs")
	if err == nil {
		handoff = filepath.Join(dir, "handoff")
		os.Setenv("PATH", strings.Join([]string{filepath.Join(cache(), "node_modules/.bin"), filepath.Join(cache(), "bin"), os.Getenv("PATH"), "/usr/sbin"}, ":"))
		built = commit()
		err = goBuild("handoff/cmd/handoff", handoff)
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// cache is where -install puts what is not Debian's.
func cache() string {
	if dir := os.Getenv("HANDOFF_PROGRAMS"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "handoff-programs")
}

func goBuild(pkg, to string) error {
	cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

func TestPrograms(t *testing.T) {
	for _, k := range []kind{tcp, path, udp} {
		t.Run(string(k), func(t *testing.T) {
			for _, r := range rows() {
				if r.kind == k {
					t.Run(r.name, func(t *testing.T) { try(t, r) })
				}
			}
		})
	}
}

// try measures a program, one at a time: with -long, or named by -run, or if it is a short one.
func try(t *testing.T, r row) {
	if !*long && !r.short && !strings.Contains(flag.Lookup("test.run").Value.String(), r.name) {
		t.Skip("not a short row: -long runs it, or its name in -run")
	}
	if missing := r.obtain(t); missing != "" {
		if *table {
			writeLine(t, r, r.unmeasured("`"+missing+"` is not to be had here"), false)
		}
		t.Skipf("%s is not here (-install fetches it: %s)", missing, strings.Join(r.from, " "))
	}
	if *table {
		defer func() {
			if t.Failed() {
				writeLine(t, r, r.unmeasured("it does not run here as it should (`go test -v` says why)"), false)
			}
		}()
	}
	res := measure(t, r)
	if t.Failed() {
		return
	}
	t.Logf("%s", r.line(res))
	if *table {
		writeLine(t, r, r.line(res), true)
	}
	if res.kept.lost > 0 {
		t.Logf("kept connections: %v", res.kept)
	}
	if res.fresh.lost > 0 && r.limit == "" {
		t.Errorf("new connections: %v", res.fresh)
	}
}

func times(n, short int) int {
	if *long {
		return n
	}
	return short
}

// Each row can be named, and says where it is from.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		key := string(r.kind) + "/" + r.name
		if seen[key] || r.name == "" || strings.ContainsAny(r.name, "|/") || len(r.args) == 0 || len(r.needs) == 0 {
			t.Errorf("%s: a row has a name of its own, a command, and what it needs", key)
		}
		seen[key] = true
		for _, f := range r.from {
			if how, what, _ := strings.Cut(f, ":"); !slices.Contains([]string{"apt", "npm", "go"}, how) || what == "" || how != "apt" && !strings.Contains(what[1:], "@") {
				t.Errorf("%s: %q is not apt:PACKAGE, npm:NAME@VERSION or go:PATH@VERSION", key, f)
			}
		}
	}
}
