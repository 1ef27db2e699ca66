package deploy

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func source(t *testing.T) string {
	t.Helper()
	src := t.TempDir()
	for name, text := range map[string]string{"app.js": "x", "lib/a.js": "y", ".git/HEAD": "z", "tmp/log.log": "l", IgnoreFile: "*.log\n", "run.sh": "#!"} {
		os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755)
		os.WriteFile(filepath.Join(src, name), []byte(text), 0o644)
	}
	os.Chmod(filepath.Join(src, "run.sh"), 0o755|os.ModeSetuid)
	os.Chmod(filepath.Join(src, "lib"), 0o711)
	os.Symlink("lib/a.js", filepath.Join(src, "link"))
	syscall.Mkfifo(filepath.Join(src, "pipe"), 0o600)
	os.Chtimes(filepath.Join(src, "app.js"), time.Time{}, time.Unix(1e9, 0))
	return src
}

func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); err == nil && !e.IsDir() {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDeploy(t *testing.T) {
	f, src := web(t), source(t)
	files, of := 0, 0
	version, err := f.Deploy(Copy{From: src, By: "me", Progress: func(n, all int, _ int64) { files, of = n, all }})
	if err != nil {
		t.Fatal(err)
	}
	dir := f.Dir(version)
	if got := tree(t, dir); !slices.Equal(got, []string{".rackignore", "app.js", "lib/a.js", "link", "run.sh"}) {
		t.Errorf("%q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || info.Mode().Perm() != 0o755 || info.Mode()&os.ModeSetuid == 0 {
		t.Error(info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "lib")); err != nil || info.Mode().Perm() != 0o711 {
		t.Error(info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "app.js")); err != nil || info.ModTime().Unix() != 1e9 {
		t.Error(info.ModTime(), err)
	}
	if files == 0 || of < files {
		t.Errorf("%d of %d files", files, of)
	}
	r, err := Read(f.Path)
	if about := r.Deployed[version]; err != nil || !slices.Equal(r.Versions, []string{version}) || about.By != "me" || about.From == "" || time.Since(about.At) > time.Minute || r.Head != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// What fails leaves no version, and nothing of the copy behind.
func TestDeployFails(t *testing.T) {
	src := source(t)
	for _, c := range []struct {
		what string
		c    Copy
		do   func(f *Folder, src string)
		want string
	}{
		{"no source", Copy{From: "/no/such", Version: "v"}, nil, "cannot deploy: "},
		{"a file", Copy{From: filepath.Join(src, "app.js"), Version: "v"}, nil, "not a directory"},
		{"a bad name", Copy{From: src, Version: "../v"}, nil, "invalid version"},
		{"one that is there", Copy{From: src, Version: "old"}, nil, "version old already exists (use --force"},
		{"no build", Copy{From: src, Version: "v", Build: func(string) error { return errors.New("npm ERR!") }}, nil, "npm ERR!"},
		{"no version to link from", Copy{From: src, Version: "v", LinkFrom: "#9"}, nil, "--link-from: "},
		{"one that is not there to link from", Copy{From: src, Version: "v", LinkFrom: "gone"}, nil, "--link-from: Couldn't find"},
		{"a link that leads out", Copy{Version: "v"}, func(_ *Folder, src string) { os.Symlink("/etc/passwd", filepath.Join(src, "secret")) }, "the link secret leads to /etc/passwd"},
		{"a link that climbs out", Copy{Version: "v"}, func(_ *Folder, src string) { os.Symlink("../../x", filepath.Join(src, "lib/up")) }, "the link lib/up leads to ../../x"},
		{"a link that leads out over another", Copy{Version: "v"}, func(f *Folder, src string) {
			os.Symlink(".", filepath.Join(src, "sub"))
			os.Symlink("sub/sub/../../.rack.json", filepath.Join(src, "up"))
		}, "the link up leads to "},
	} {
		f := web(t, "old")
		if c.do != nil {
			c.c.From = source(t)
			c.do(f, c.c.From)
		}
		if _, err := f.Deploy(c.c); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
		entries, _ := os.ReadDir(f.Path)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{".rack.json", ".rack.lock", "old"}) || !slices.Equal(f.Versions, []string{"old"}) {
			t.Errorf("%s leaves %q, versions %q", c.what, names, f.Versions)
		}
	}
	f := web(t, "old")
	if _, err := f.Deploy(Copy{From: f.Path}); err == nil || !strings.Contains(err.Error(), "into itself") {
		t.Error(err)
	}
	t.Chdir(f.Path)
	if _, err := f.Deploy(Copy{From: "."}); err == nil || !strings.Contains(err.Error(), "into itself") { // it copied itself, until names were too long
		t.Error(err)
	}
	if _, err := f.Deploy(Copy{From: f.Dir("old"), Version: "new"}); err != nil { // from a version of its own
		t.Error(err)
	}
	out := t.TempDir()
	os.Symlink("/etc/passwd", filepath.Join(out, "secret"))
	if _, err := f.Deploy(Copy{From: out, Version: "unsafe", Outside: true}); err != nil {
		t.Error(err)
	}
}

// The source may hold the deployment, and be named relative to it.
func TestDeployFromAbove(t *testing.T) {
	src := source(t)
	dir := filepath.Join(src, "deployed")
	if err := Setup(dir, ""); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Chdir(dir)
	for version, from := range map[string]string{"absolute": src, "relative": ".."} {
		if _, err := f.Deploy(Copy{From: from, Version: version}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(f.Dir(version), "deployed")); err == nil {
			t.Errorf("%s: the deployment is copied into itself", version)
		}
		if r, err := Read(dir); err != nil || r.Deployed[version].From != src {
			t.Errorf("%s: from %q, %v", version, r.Deployed[version].From, err)
		}
	}
}

// Resources: the folder's own directory is shared by every version, else the live
// version's is linked into the folder.
func TestResources(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "web")
	if err := Setup(dir, "public"); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, v := range []string{"a", "b", "none"} {
		src := t.TempDir()
		if v != "none" {
			os.Mkdir(filepath.Join(src, "public"), 0o755)
		}
		if _, err := f.Deploy(Copy{From: src, Version: v}); err != nil {
			t.Fatal(err)
		}
	}
	link := func() string { l, _ := os.Readlink(filepath.Join(dir, "public")); return l }
	for _, s := range []struct{ version, want string }{{"a", "a/public"}, {"b", "b/public"}, {"none", "b/public"}} {
		if err := f.Switch(s.version, "me", BySwitch); err != nil || link() != s.want {
			t.Errorf("%s: %s, %v", s.version, link(), err)
		}
	}
	os.Remove(filepath.Join(dir, "public"))
	os.WriteFile(filepath.Join(dir, "public"), nil, 0o644)
	if err := f.Switch("a", "me", BySwitch); err == nil || f.Head != "none" {
		t.Errorf("a file in the way: %v, %s is live", err, f.Head)
	}
	os.Remove(filepath.Join(dir, "public"))
	os.Mkdir(filepath.Join(dir, "public"), 0o755)
	if err := f.Switch("a", "me", BySwitch); err == nil || !strings.Contains(err.Error(), "with that name exists") {
		t.Errorf("the version's own is in the way: %v", err)
	}
	if err := f.Switch("none", "me", BySwitch); err != nil {
		t.Error(err)
	}
	if l, err := os.Readlink(filepath.Join(dir, "none/public")); l != "../public" || err != nil {
		t.Errorf("%s, %v", l, err)
	}
	src := t.TempDir()
	if _, err := f.Deploy(Copy{From: src, Version: "shared"}); err != nil {
		t.Error(err)
	}
	if l, _ := os.Readlink(filepath.Join(dir, "shared/public")); l != "../public" {
		t.Error(l)
	}
	f.Resources = "../out"
	if err := f.Switch("shared", "me", BySwitch); err == nil || !strings.Contains(err.Error(), "leave the version") {
		t.Error(err)
	}
}

func TestOldestFormFollows(t *testing.T) {
	f := web(t, "a", "b")
	os.WriteFile(filepath.Join(f.Path, VersionFile), []byte("a\n"), 0o644)
	if err := f.Switch("b", "me", BySwitch); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(f.Path, VersionFile)); string(b) != "b\n" {
		t.Errorf("%q", b)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	f := web(t, "a", "b")
	for range maxHistory {
		f.History = append(f.History, Live{Version: "a", How: BySwitch})
	}
	f.Switch("b", "me", BySwitch)
	if n := len(f.History); n != maxHistory || f.History[n-1].Version != "b" {
		t.Errorf("%d, the last is %+v", n, f.History[n-1])
	}
}

func TestSetup(t *testing.T) {
	f := web(t, "a")
	f.Switch("a", "me", BySwitch)
	f.Close()
	if err := Setup(f.Path, ""); err != nil {
		t.Fatal(err)
	}
	if r, err := Read(f.Path); err != nil || r.Head != "a" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := Setup(t.TempDir(), "a/b"); err == nil {
		t.Error("a link that leaves the folder")
	}
	os.WriteFile(filepath.Join(f.Path, File), []byte("["), 0o644)
	if err := Setup(f.Path, ""); err == nil || !strings.Contains(err.Error(), "nothing is changed") {
		t.Error(err)
	}
	if _, err := Open(f.Path, time.Second); err == nil {
		t.Error("opened")
	}
	if _, err := Open(t.TempDir(), time.Second); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// A folder, and a source, may be another user's, who would have root write, lock or read
// elsewhere, or make a program of his root's.
func TestAnotherUsersFolder(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	os.WriteFile(secret, []byte("secret"), 0o644)
	at := func(f *Folder, name string) string { return filepath.Join(f.Path, name) }
	for what, c := range map[string]struct {
		plant func(f *Folder)
		want  string
	}{
		"a lock that is a link":            {func(f *Folder) { os.Remove(at(f, lockFile)); os.Symlink(secret, at(f, lockFile)) }, "escapes"},
		"a lock that is a link inside":     {func(f *Folder) { os.Remove(at(f, lockFile)); os.Symlink(File, at(f, lockFile)) }, "is not a lock"},
		"a lock that is another file, too": {func(f *Folder) { os.Remove(at(f, lockFile)); os.Link(secret, at(f, lockFile)) }, "is not a lock"},
		"a lock that is a pipe":            {func(f *Folder) { os.Remove(at(f, lockFile)); syscall.Mkfifo(at(f, lockFile), 0o600) }, "is not a lock"},
		"a record that is a pipe":          {func(f *Folder) { os.Remove(at(f, File)); syscall.Mkfifo(at(f, File), 0o600) }, "not a file"},
	} {
		f := web(t, "old")
		f.Close()
		c.plant(f)
		if g, err := Open(f.Path, time.Second); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
			if err == nil {
				g.Close()
			}
		}
	}
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	f := web(t, "v")
	os.Mkdir(filepath.Join(f.Dir("v"), "in"), 0o755)
	rel, err := filepath.Rel(f.Path, outside)
	if err != nil {
		t.Fatal(err)
	}
	f.ResourceLink, f.Resources = rel+"/planted", "in"
	if err := f.Switch("v", "me", BySwitch); err == nil {
		t.Error("a resource link that leaves the folder is made")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("the resource link is made elsewhere: %v, %v", left, err)
	}
}

// A copy belongs to who copies, and runs as that one: a program that was to run as its
// owner does not run as root.
func TestSetuidOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f, src := web(t, "old"), source(t)
	for name, id := range map[string]int{"users": 65534, "roots": 0} {
		path := filepath.Join(src, name)
		os.WriteFile(path, nil, 0o755)
		os.Chown(path, id, id)
		os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid)
	}
	for _, version := range []string{"a", "b"} {
		c := Copy{From: src, Version: version}
		if version == "b" {
			c.LinkFrom = "a"
		}
		if _, err := f.Deploy(c); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{"users": 0o755, "roots": 0o755 | os.ModeSetuid | os.ModeSetgid} {
			if info, err := os.Stat(filepath.Join(f.Dir(version), name)); err != nil || info.Mode() != want {
				t.Errorf("%s/%s: %v, want %v", version, name, info.Mode(), want)
			}
		}
	}
}

// Whoever looks for a deployment upwards does not believe what somebody has put where
// everybody can.
func TestPlantedRecord(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f := web(t, "v")
	f.Close()
	for _, c := range []struct {
		mode  os.FileMode
		owner int // of the record
		dir   int // of the folder
		ok    bool
	}{{0o755, 65534, 0, true}, {0o777 | os.ModeSticky, 65534, 0, false}, {0o777, 65534, 65534, true}, {0o777 | os.ModeSticky, 0, 0, true}} {
		os.Chown(filepath.Join(f.Path, File), c.owner, -1)
		os.Chown(f.Path, c.dir, -1)
		os.Chmod(f.Path, c.mode)
		if _, err := Read(f.Path); (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "belongs to the user 65534") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
