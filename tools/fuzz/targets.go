package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Target is a fuzz function.
type Target struct {
	Package string // its folder
	Name    string
}

func (t Target) String() string { return t.Package + " " + t.Name }

// Targets finds the fuzz functions below a folder.
func Targets(dir string) (all []Target, err error) {
	set := token.NewFileSet()
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != dir) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && isFuzz(fn) {
				at, err := filepath.Rel(dir, filepath.Dir(p))
				if err != nil {
					return err
				}
				all = append(all, Target{at, fn.Name.Name})
			}
		}
		return nil
	})
	return all, err
}

// isFuzz tells whether go test takes a function for a target: FuzzX(f *testing.F).
func isFuzz(fn *ast.FuncDecl) bool {
	if !strings.HasPrefix(fn.Name.Name, "Fuzz") || len(fn.Type.Params.List) != 1 {
		return false
	}
	star, ok := fn.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	of, ok := star.X.(*ast.SelectorExpr)
	return ok && of.Sel.Name == "F"
}

// What is kept of a corpus: the smallest inputs, up to so many, and so many bytes.
const (
	maxKept  = 400
	maxBytes = 96 << 10
)

func (t Target) archive() string {
	return filepath.Join(t.Package, "testdata", "corpus", t.Name+".txtar")
}
func (t Target) cached(cache string) string {
	return filepath.Join(cache, "handoff", t.Package, t.Name)
}

// unpack puts the kept inputs into Go's cache.
func (t Target) unpack(cache string) error {
	a, err := txtar.ParseFile(t.archive())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := t.cached(cache)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range a.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pack keeps what the cache has: each input there has led to code that the ones before it
// had not.
func (t Target) pack(cache string) error {
	dir := t.cached(cache)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return nil // nothing was found
	}
	a := &txtar.Archive{Comment: []byte("Inputs of " + t.Name + " that have led to new code; see tools/fuzz.\n")}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		a.Files = append(a.Files, txtar.File{Name: e.Name(), Data: b})
	}
	slices.SortStableFunc(a.Files, func(x, y txtar.File) int { return len(x.Data) - len(y.Data) })
	bytes := 0
	for i, f := range a.Files {
		if bytes += len(f.Data); i >= maxKept || bytes > maxBytes {
			a.Files = a.Files[:i]
			break
		}
	}
	slices.SortFunc(a.Files, func(x, y txtar.File) int { return strings.Compare(x.Name, y.Name) })
	if err := os.MkdirAll(filepath.Dir(t.archive()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(t.archive(), txtar.Format(a), 0o644)
}
