package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBefore(t *testing.T) {
	for _, c := range []struct {
		history, head string
		steps         int
		want          string
	}{
		{"a b c", "c", 1, "b"},
		{"a b c", "c", 2, "a"},
		{"a b c", "c", 3, ""},
		{"a b c <b", "b", 1, "a"}, // further back, not to c
		{"a b c <b d", "d", 1, "b"},
		{"a b a", "a", 1, "b"},
		{"a b b", "b", 1, "a"},
		{"a b", "x", 1, "b"}, // somebody else has switched
	} {
		r := &Record{Head: c.head}
		for w := range strings.FieldsSeq(c.history) {
			e := Live{Version: strings.TrimPrefix(w, "<"), How: "switch"}
			if strings.HasPrefix(w, "<") {
				e.How = "rollback"
			}
			r.History = append(r.History, e)
		}
		if got, err := r.Before(c.steps); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s, %s live, %d steps: %q %v, want %q", c.history, c.head, c.steps, got, err, c.want)
		}
	}
}

func TestIgnore(t *testing.T) {
	rules := parseIgnore([]byte("# no\n\n*.log\n!keep.log\n/top\nbuild/\ndoc/**/*.txt\n\\#odd\n[bad\n"))
	for name, want := range map[string]bool{
		"a.log": true, "x/y/a.log": true, "keep.log": false, "x/keep.log": false, "top": true, "x/top": false,
		"build/": true, "x/build/": true, "build": false, "doc/a/b/c.txt": true, "doc/c.txt": true, "c.txt": false, "#odd": true,
	} {
		if got := rules.match(strings.TrimSuffix(name, "/"), strings.HasSuffix(name, "/")); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLinkFromSharesWhatIsTheSame(t *testing.T) {
	src, dir := t.TempDir(), filepath.Join(t.TempDir(), "web")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("same", "s")
	write("other", "1")
	if err := Setup(dir, ""); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Deploy(Copy{From: src, Version: "a"}); err != nil {
		t.Fatal(err)
	}
	write("other", "2")
	if _, err := f.Deploy(Copy{From: src, Version: "b", LinkFrom: "a"}); err != nil {
		t.Fatal(err)
	}
	stat := func(name string) os.FileInfo {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if !os.SameFile(stat("a/same"), stat("b/same")) || os.SameFile(stat("a/other"), stat("b/other")) {
		t.Error("shared is not what is the same")
	}
	if _, err := Open(dir, 10*time.Millisecond); err == nil {
		t.Error("two have the lock")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"resourceLink": false, "head": "v2", "versions": [20150101, "v2", "v2", 1e5, null], "custom": {"a": 1}}`))
	f.Add([]byte(`{"head": "../x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		for _, v := range append(slices.Clone(r.Versions), r.Head) {
			if v != "" && (strings.ContainsAny(v, "/\\") || v[0] == '.' || !filepath.IsLocal(v)) {
				t.Errorf("version %q", v)
			}
		}
		again, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		second, err := Parse(again)
		if err != nil || second.Head != r.Head || !slices.Equal(second.Versions, r.Versions) {
			t.Errorf("%s became %s: %v", b, again, err)
		}
		r.Before(1)
	})
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"#1", "^", "^-1", "#99999999999999999999", "v1", "..", "^x", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		r := &Record{Head: "b", Versions: []string{"a", "b", "c"}}
		if v, err := r.Resolve(ref); err == nil && (CheckName(v) != nil || !filepath.IsLocal(v)) {
			t.Errorf("%q is %q", ref, v)
		}
	})
}

func FuzzIgnore(f *testing.F) {
	f.Add([]byte("*.log\n!a\n/x/\n[\n\\"), "a/b.log")
	f.Fuzz(func(t *testing.T, rules []byte, name string) { parseIgnore(rules).match(name, false) })
}
