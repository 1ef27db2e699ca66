package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// web is a deployment with versions, each with a file that says which copy it is.
func web(t *testing.T, versions ...string) *Folder {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "web")
	if err := Setup(dir, ""); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	for _, v := range versions {
		deployAs(t, f, v, v)
	}
	return f
}

func deployAs(t *testing.T, f *Folder, version, says string) {
	t.Helper()
	src := t.TempDir()
	os.WriteFile(filepath.Join(src, "copy"), []byte(says), 0o644)
	if _, err := f.Deploy(Copy{From: src, Version: version, Force: true, By: "me"}); err != nil {
		t.Fatal(err)
	}
}

// state is what is on disk: the live version with the copy that it has, and the history.
func state(t *testing.T, f *Folder) string {
	t.Helper()
	r, err := Read(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	copy, _ := os.ReadFile(filepath.Join(f.Path, r.Head, "copy"))
	var history []string
	for _, e := range r.History {
		history = append(history, map[string]string{BySwitch: "", ByRollback: "<"}[e.How]+e.Version)
	}
	return fmt.Sprintf("%s(%s) %s", r.Head, copy, strings.Join(history, " "))
}

func TestGoLive(t *testing.T) {
	serves := func() error { return nil }
	broken := func() error { return errors.New("no database") }
	type step struct {
		do   string // version, with + for a new copy of it by force; < goes back
		by   Serves
		want string // of state
		err  string
	}
	for name, steps := range map[string][]step{
		"nobody runs it": {
			{"a", nil, "a(a) a", ""},
			{"b", nil, "b(b) a b", ""},
		},
		"a broken version does not stay live": {
			{"a", serves, "a(a) a", ""},
			{"b", broken, "a(a) a b <a", "b does not serve, a is live again: no database"},
			{"c", serves, "c(c) a b <a c", ""},
			{"<1", serves, "a(a) a b <a c <a", ""},
		},
		"the first one cannot be taken back": {
			{"a", broken, "a(a) a", "a does not serve: no database"},
		},
		"the same version again": {
			{"a", serves, "a(a) a", ""},
			{"a", broken, "a(a) a a", "a does not serve: no database"},
		},
		"a new copy by force is swapped back": {
			{"a", serves, "a(a) a", ""},
			{"a+", broken, "a(a) a a", "the new copy of a does not serve; restored the previous one: no database"},
			{"a+", serves, "a(a+) a a a", ""},
		},
		"a rollback is a stack": {
			{"a", serves, "a(a) a", ""}, {"b", serves, "b(b) a b", ""}, {"c", serves, "c(c) a b c", ""},
			{"<1", serves, "b(b) a b c <b", ""},
			{"<1", serves, "a(a) a b c <b <a", ""},
			{"<1", serves, "a(a) a b c <b <a", "the history has no version 1 steps back"},
		},
		"a rollback to a broken version is undone": {
			{"a", serves, "a(a) a", ""}, {"b", serves, "b(b) a b", ""},
			{"<1", broken, "b(b) a b <a <b", "a does not serve, b is live again: no database"},
		},
		"more than one step": {
			{"a", serves, "a(a) a", ""}, {"b", serves, "b(b) a b", ""}, {"c", serves, "c(c) a b c", ""},
			{"<2", serves, "a(a) a b c <a", ""},
		},
		"what is not there": {
			{"a", serves, "a(a) a", ""},
			{"z", serves, "a(a) a", "Couldn't find the target version, z"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := web(t, "a", "b", "c")
			for _, s := range steps {
				var err error
				version, force := strings.CutSuffix(s.do, "+")
				if force {
					deployAs(t, f, version, s.do)
				}
				if n, back := strings.CutPrefix(s.do, "<"); back {
					_, err = f.Rollback(int(n[0]-'0'), "me", s.by)
				} else {
					err = f.GoLive(version, "me", BySwitch, s.by)
				}
				if got := state(t, f); got != s.want || (err == nil) != (s.err == "") || err != nil && err.Error() != s.err {
					t.Fatalf("%s: %s, %v; want %s, %s", s.do, got, err, s.want, s.err)
				}
			}
		})
	}
}

func TestRollbackWithoutHistory(t *testing.T) { // a folder that was RackMan's
	f := web(t, "a", "b", "c")
	f.Head = "c"
	if v, err := f.Rollback(1, "me", nil); v != "b" || err != nil {
		t.Errorf("%s, %v", v, err)
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		what string
		c    Clean
		want string // that go, of a b c d e, of which b was live before d
		err  string
	}{
		{"nothing asked", Clean{}, ".deploy-x", ""},
		{"keep", Clean{Keep: 2}, ".deploy-x a c", ""},
		{"keep all", Clean{Keep: 9}, ".deploy-x", ""},
		{"until", Clean{Until: "c"}, ".deploy-x a", ""},
		{"until by index", Clean{Until: "#3"}, ".deploy-x a c", ""},
		{"until by the live one", Clean{Until: "^0"}, ".deploy-x a c", ""},
		{"old", Clean{OlderThan: time.Hour}, ".deploy-x a c", ""},
		{"old by its directory", Clean{OlderThan: 48 * time.Hour}, ".deploy-x c", ""},
		{"dry", Clean{Keep: 1, Dry: true}, ".deploy-x a c", ""},
		{"past the live one", Clean{Until: "e"}, "", "Cannot clean as the current deployment is within the selected range"},
		{"not there", Clean{Until: "z"}, "", "z is not a version of"},
		{"not a name", Clean{Until: "#9"}, "", "does not yield a valid deployment index value"},
	} {
		f := web(t, "a", "b", "c", "d", "e")
		f.Switch("b", "me", BySwitch)
		f.Switch("d", "me", BySwitch)
		os.Mkdir(filepath.Join(f.Path, ".deploy-x"), 0o755)
		os.Mkdir(filepath.Join(f.Path, "unregistered"), 0o755)
		for _, v := range []string{"a", "b", "d"} {
			about := f.Deployed[v]
			about.At = time.Now().Add(-24 * time.Hour)
			f.Deployed[v] = about
		}
		delete(f.Deployed, "c") // by other means
		os.Chtimes(f.Dir("c"), time.Time{}, time.Now().Add(-72*time.Hour))
		names, err := f.Clean(c.c)
		if got := strings.Join(names, " "); got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v; want %q, %q", c.what, got, err, c.want, c.err)
		}
		for _, name := range []string{"a", "b", "c", "d", "e", ".deploy-x", "unregistered"} {
			_, serr := os.Stat(filepath.Join(f.Path, name))
			gone := err == nil && !c.c.Dry && slices.Contains(names, name)
			r, _ := Read(f.Path)
			if (serr != nil) != gone || len(name) == 1 && slices.Contains(r.Versions, name) == gone {
				t.Errorf("%s: %s: gone %v, %v, of %q", c.what, name, gone, serr, r.Versions)
			}
		}
	}
}

func TestCleanLeavesWhatLinksLeadTo(t *testing.T) {
	f := web(t)
	elsewhere := t.TempDir()
	os.Symlink(elsewhere, f.Dir("linked"))
	if err := f.Register("linked"); err != nil {
		t.Fatal(err)
	}
	deployAs(t, f, "a", "a")
	deployAs(t, f, "b", "b")
	if names, err := f.Clean(Clean{Keep: 1}); err != nil || !slices.Contains(names, "linked") {
		t.Fatal(names, err)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(f.Dir("linked")); err == nil {
		t.Error("the link is still there")
	}
}

func TestLocate(t *testing.T) {
	f := web(t, "a")
	in := filepath.Join(f.Path, "a")
	other := t.TempDir()
	for _, c := range []struct {
		here, args, want, rest, err string
	}{
		{other, f.Path + " v1", f.Path, "v1", ""},
		{in, "v1", f.Path, "v1", ""},
		{f.Path, "", f.Path, "", ""},
		{in, f.Path, f.Path, "", ""},
		{other, "v1", "", "", "v1 is not a valid deployment: it has no .rack.json"},
		{other, "", "", "", other + " is not a valid deployment: there is no .rack.json here or above"},
	} {
		folder, rest, err := Locate(c.here, strings.Fields(c.args))
		if folder != c.want || strings.Join(rest, " ") != c.rest || (err == nil) != (c.err == "") || err != nil && (!strings.HasPrefix(err.Error(), c.err) || !errors.Is(err, ErrNone)) {
			t.Errorf("%s in %s: %s %q, %v", c.args, c.here, folder, rest, err)
		}
	}
}

func TestList(t *testing.T) {
	f := web(t, "a", "b", "c")
	f.Switch("a", "me", BySwitch)
	f.Switch("c", "me", BySwitch)
	got := ""
	for _, v := range f.List() {
		got += fmt.Sprintf("%s %v %v %s;", v.Version, v.Live, v.Previous, v.By)
	}
	if got != "a false true me;b false false me;c true false me;" {
		t.Error(got)
	}
}

func TestResolve(t *testing.T) {
	r := &Record{Head: "b", Versions: []string{"a", "b", "c"}}
	for ref, want := range map[string]string{"#0": "a", "#2": "c", "^": "a", "^0": "b", "^-1": "c", "c": "c", "other": "other"} {
		if got, err := r.Resolve(ref); got != want || err != nil {
			t.Errorf("%s: %s, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"", "#3", "#-1", "#x", "^2", "^-2", "^x", "a/b", ".x"} {
		if got, err := r.Resolve(ref); err == nil {
			t.Errorf("%q is %s", ref, got)
		}
	}
	if _, err := (&Record{Versions: []string{"a"}}).Resolve("^"); err == nil || !strings.Contains(err.Error(), "HEAD is not present") {
		t.Error(err)
	}
}

func TestRegister(t *testing.T) {
	f := web(t)
	os.Mkdir(f.Dir("v1"), 0o755)
	for version, want := range map[string]string{"v1": "", "v2": "There is no deployed project with the version number v2", "": "You failed to specify a version", "../x": "invalid version"} {
		if err := f.Register(version); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", version, err)
		}
	}
	f.Register("v1")
	if r, _ := Read(f.Path); !slices.Equal(r.Versions, []string{"v1"}) {
		t.Errorf("%q", r.Versions)
	}
}
