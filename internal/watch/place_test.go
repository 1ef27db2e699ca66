package watch

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		t.Fatal(err)
	}
}

// What a path hangs on.
func TestFollow(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	os.MkdirAll(dir+"/v1/lib", 0o755)
	link(t, "v1", dir+"/latest")
	link(t, dir+"/latest", dir+"/current")
	link(t, "loop", dir+"/loop")
	for _, c := range []struct {
		path, real string
		ways       []string
	}{
		{"/v1/lib", "/v1/lib", nil},
		{"/current/lib", "/v1/lib", []string{"/current", "/latest"}},
		{"/current/../v1/.", "/v1", []string{"/current", "/latest"}},
		{"/current/new/x", "", []string{"/current", "/latest", "/v1/new"}},
		{"/gone/x", "", []string{"/gone"}},
	} {
		real, ways, ok := follow(dir + c.path)
		want := slices.Clone(c.ways)
		for i := range want {
			want[i] = dir + want[i]
		}
		if ok != (c.real != "") || ok && real != dir+c.real || !slices.Equal(ways, want) {
			t.Errorf("%s: %s, %q, %v", c.path, real, ways, ok)
		}
	}
	if _, _, ok := follow(dir + "/loop"); ok {
		t.Error("a loop leads somewhere")
	}
}

// Patterns that lead elsewhere: absolute, by .., of folders and files, also of those that
// are not there yet, and through links.
func TestElsewhere(t *testing.T) {
	root, _ := filepath.EvalSymlinks(t.TempDir())
	put(t, root+"/app/app.js", "")
	put(t, root+"/shared/lib/a.js", "")
	put(t, root+"/etc/web/a.json", "")
	put(t, root+"/releases/1/x.js", "")
	put(t, root+"/releases/2/x.js", "")
	link(t, "../releases/1", root+"/app/current")
	changes := watching(t, Config{Dir: root + "/app", Delay: delay, Patterns: []string{
		"*.js", "../shared", root + "/etc/web/*.json", root + "/later/**/*.js", root + "/one.json", "current/*.js", "sub"}})
	for _, p := range []string{"shared/lib/a.js", "shared/new/deep/b.css", "etc/web/a.json", "etc/web/b.json", "one.json", "releases/1/x.js", "app/sub/deep/x", "app/sub/deep/y"} {
		put(t, filepath.Join(root, p), "x")
		next(t, changes, p)
	}
	put(t, root+"/later/x/a.js", "x") // the folder comes, or the file in it
	next(t, changes, "later")
	for _, p := range []string{"etc/web/a.txt", "etc/web/x/a.json", "two.json", "releases/2/x.js", "app/y/z.js", "later/x/a.txt"} {
		put(t, filepath.Join(root, p), "x")
		none(t, changes, root+"/app", p)
	}
	link(t, "../releases/2", root+"/app/current")
	next(t, changes, "the switch of a link that a pattern goes through")
	put(t, root+"/releases/2/x.js", "y")
	next(t, changes, "what is behind it now")
	// Another folder takes the place of one.
	put(t, root+"/etc/new/a.json", "z")
	os.Rename(root+"/etc/web", root+"/etc/old")
	os.Rename(root+"/etc/new", root+"/etc/web")
	next(t, changes, "another folder")
	for len(changes) > 0 {
		<-changes
	}
	mark(t, root+"/etc/web", "a.json")
	next(t, changes, "a file of the other folder")
}

// The kubelet switches the files of a ConfigMap by one link, and removes what it led to.
func TestConfigMap(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	volume := dir + "/config"
	version := func(name, text string) {
		put(t, volume+"/.."+name+"/app.json", text)
		put(t, volume+"/.."+name+"/handoff.toml", text)
		put(t, volume+"/.."+name+"/deep/x.json", text)
		link(t, ".."+name, volume+"/..data")
	}
	version("1", "one")
	for _, name := range []string{"app.json", "handoff.toml", "deep"} {
		link(t, "..data/"+name, volume+"/"+name)
	}
	for what, cfg := range map[string]Config{
		"a pattern":              {Patterns: []string{"begin.js", "begun.js", "marker.js", "config/*.json"}},
		"a pattern with **":      {Patterns: []string{"begin.js", "begun.js", "marker.js", "config/**/*.json"}},
		"an absolute pattern":    {Patterns: []string{"begin.js", "begun.js", "marker.js", volume + "/*.json"}},
		"a file":                 {Patterns: []string{"begin.js", "begun.js", "marker.js", "config/app.json"}},
		"the configuration":      {Patterns: []string{"begin.js", "begun.js", "marker.js"}, Files: []string{volume + "/handoff.toml"}},
		"a folder in the volume": {Patterns: []string{"begin.js", "begun.js", "marker.js", "config/deep/*.json"}},
	} {
		t.Run(what, func(t *testing.T) {
			cfg.Dir, cfg.Delay = dir, delay
			changes := watching(t, cfg)
			for _, v := range []string{"2", "3"} {
				old, _ := os.Readlink(volume + "/..data")
				version(v+what, v)
				os.RemoveAll(volume + "/" + old)
				next(t, changes, "the switch")
			}
			put(t, volume+"/..data_tmp", "")
			none(t, changes, dir, "what is not switched")
		})
	}
}

// What handoff writes never counts, nor do sockets.
func TestOwnFiles(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	out, err := os.Create(dir + "/out.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var st syscall.Stat_t
	syscall.Fstat(int(out.Fd()), &st)
	own := slices.Concat(Written(dir+"/web.log"), WrittenIn(dir+"/logs", "web.[0-9]*.log*"))
	changes := watching(t, Config{Dir: dir, Patterns: []string{"**", "!*.new"}, Delay: delay, Own: own, Inodes: []Inode{{uint64(st.Dev), st.Ino}}})
	for len(changes) > 0 { // of what watching has made
		<-changes
	}
	for _, p := range []string{"web.log", "web.log.1", "logs/web.0.log", "logs/web.10.log.2"} {
		put(t, dir+"/"+p, "x")
		none(t, changes, dir, p)
	}
	out.WriteString("x")
	none(t, changes, dir, "own output")
	os.Rename(dir+"/web.log", dir+"/web.log.2")
	none(t, changes, dir, "a rotation")
	l, err := net.Listen("unix", dir+"/web.sock")
	if err != nil {
		t.Fatal(err)
	}
	none(t, changes, dir, "a socket")
	l.Close()
	none(t, changes, dir, "a socket that goes")
	for _, p := range []string{"web.login", "logs/other.log", "web.js"} {
		put(t, dir+"/"+p, "x")
		next(t, changes, p)
		for len(changes) > 0 {
			<-changes
		}
	}
}
