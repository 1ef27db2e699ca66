package events

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// names are those of the constants, by their values.
func names(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	consts := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			consts[text(v.Values[0])] = v.Names[0].Name
		}
		return true
	})
	return consts
}

// text is the value of a string literal; "": it is none.
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

// constant is the name of a constant of this package; "": it is none.
func constant(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok && x.Name == "events" {
			return s.Sel.Name
		}
	}
	return ""
}

// sources calls f for each Go file of the program that is no test.
func sources(t *testing.T, f func(path string, file *ast.File)) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"node_modules", "testdata", ".git", "bench", "tools", "integration", "events"}, d.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(set, p, nil, 0)
		if err == nil {
			f(p, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Each constant is in the table, once, and each row of it is of a constant.
func TestTable(t *testing.T) {
	consts := names(t)
	seen := map[string]bool{}
	for _, e := range All() {
		if consts[e.Name] == "" || seen[e.Name] || e.Text == "" {
			t.Errorf("%+v", e)
		}
		seen[e.Name] = true
		for i, f := range e.Fields {
			if slices.Contains(e.Fields[:i], f) {
				t.Errorf("%s has the field %s twice", e.Name, f)
			}
		}
	}
	for name := range consts {
		if !seen[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// Whatever has an event has one of the table, and each is used.
func TestNames(t *testing.T) {
	used := map[string]bool{}
	sources(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok && constant(e) != "" {
				used[constant(e)] = true
			}
			for _, name := range named(n) {
				if _, ok := name.(*ast.Ident); !ok && constant(name) == "" { // a variable has one that is looked at where it is set
					t.Errorf("%s: an event that is no constant of internal/events: %s", path, text(name))
				}
			}
			return true
		})
	})
	for value, name := range names(t) {
		if !used[name] {
			t.Errorf("%s (%s) is never used", name, value)
		}
	}
}

// named are the expressions that name an event: what follows "event" in a list of
// attributes, and the first argument of a worker's attrs.
func named(n ast.Node) (all []ast.Expr) {
	var list []ast.Expr
	switch n := n.(type) {
	case *ast.CallExpr:
		list = n.Args
		if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "attrs" && len(list) > 0 {
			all = append(all, list[0])
		}
	case *ast.CompositeLit:
		list = n.Elts
	}
	for i, e := range list {
		if text(e) == "event" && i+1 < len(list) {
			all = append(all, list[i+1])
		}
	}
	return all
}

// Level and fields of a line are what the table says.
func TestLinesAreAsDocumented(t *testing.T) {
	rows := map[string]Info{}
	consts := names(t)
	for _, e := range All() {
		rows[consts[e.Name]] = e
	}
	levels := map[string]string{"Debug": debug, "Info": info, "Warn": warn, "Error": fail, "once": warn, "report": fail}
	seen := map[string]bool{}
	check := func(path, level string, list []ast.Expr) {
		for i, e := range list {
			row, ok := rows[constant(e)]
			if !ok {
				continue
			}
			if level != "" {
				seen[row.Name+" "+level] = true
				if !slices.Contains(row.Levels, level) {
					t.Errorf("%s: %s at level %s", path, row.Name, level)
				}
			}
			for j := i + 1; j < len(list); j += 2 {
				key := text(list[j])
				if key != "" && !slices.Contains(row.Fields, key) && !slices.Contains(row.Fields, key+"_seconds") {
					t.Errorf("%s: %s has a field %q that is not documented", path, row.Name, key)
				}
			}
		}
	}
	sources(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || levels[s.Sel.Name] == "" {
				return true
			}
			check(path, levels[s.Sel.Name], call.Args)
			for _, arg := range call.Args { // w.attrs(…), append(w.attrs(…), …)
				ast.Inspect(arg, func(n ast.Node) bool {
					switch inner := n.(type) {
					case *ast.CallExpr:
						check(path, levels[s.Sel.Name], inner.Args)
					case *ast.CompositeLit: // append([]any{…}, …)
						check(path, levels[s.Sel.Name], inner.Elts)
					}
					return true
				})
			}
			return true
		})
	})
	for _, row := range rows {
		if slices.Contains([]string{ClusterStarted, ClusterReloaded, AddressMended}, row.Name) {
			continue // by way of a variable
		}
		for _, level := range row.Levels {
			if !seen[row.Name+" "+level] {
				t.Errorf("%s is never logged at level %s", row.Name, level)
			}
		}
	}
}
