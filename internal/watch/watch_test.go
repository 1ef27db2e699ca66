package watch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

type change struct {
	first string
	n     int
}

// watching runs a watch, and returns its changes. ready is reported by a change of
// its own.
func watching(t *testing.T, cfg Config) <-chan change {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes, ended := make(chan change, 100), make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, func(c Changes) Verdict {
			changes <- change{c.First, len(c.Files)}
			return Verdict{}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	// It watches as soon as a change is told of. What is told after the last of these
	// files is of something else.
	tick := time.NewTicker(5 * cfg.Delay)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); ; {
		mark(t, cfg.Dir, "begin.js")
		select {
		case <-changes:
			mark(t, cfg.Dir, "begun.js")
			for c := range changes {
				if filepath.Base(c.first) == "begun.js" || c.n > 1 {
					return changes
				}
			}
		case <-tick.C:
		case <-deadline:
			t.Fatal("no change is told of")
		}
	}
}

// mark puts a file into a folder in one event.
func mark(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	put(t, path+".new", fmt.Sprint(time.Now()))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const delay = 50 * time.Millisecond

func next(t *testing.T, changes <-chan change, what string) change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(10 * time.Second):
		t.Fatalf("%s is no change", what)
		return change{}
	}
}

// none is shown by order: what comes next is the change of another file, alone.
func none(t *testing.T, changes <-chan change, dir, what string) {
	t.Helper()
	mark(t, dir, "marker.js")
	if c := next(t, changes, "the marker"); filepath.Base(c.first) != "marker.js" || c.n != 1 {
		t.Errorf("%s is a change: %+v", what, c)
	}
}

func TestChanges(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "lib/a.js"), "")
	put(t, filepath.Join(dir, "node_modules/m/a.js"), "")
	put(t, filepath.Join(dir, "tmp/a.js"), "")
	changes := watching(t, Config{Dir: dir, Patterns: []string{"**/*.{js,json}", "!**/*.test.js"}, Ignore: []string{"tmp"}, Delay: delay})
	for _, p := range []string{"lib/a.js", "new/deep/er/b.js", "new/deep/c.json", "d.js"} {
		put(t, filepath.Join(dir, p), "x")
		if c := next(t, changes, p); c.n < 1 {
			t.Errorf("%+v", c)
		}
	}
	for _, p := range []string{"node_modules/m/a.js", "tmp/a.js", ".git/x.js", "lib/.a.js.swp", "a.test.js", "a.txt", "lib/a.js~"} {
		put(t, filepath.Join(dir, p), "x")
		none(t, changes, dir, p)
	}
	// An editor puts another file in its place.
	put(t, filepath.Join(dir, "lib/.a.js.new"), "y")
	os.Rename(filepath.Join(dir, "lib/.a.js.new"), filepath.Join(dir, "lib/a.js"))
	if c := next(t, changes, "rename"); c.n != 1 {
		t.Errorf("%+v", c)
	}
	os.Remove(filepath.Join(dir, "d.js"))
	next(t, changes, "removal")
	// Read and chmod are none.
	os.Chmod(filepath.Join(dir, "lib/a.js"), 0o600)
	os.ReadFile(filepath.Join(dir, "lib/a.js"))
	none(t, changes, dir, "chmod")
}

// A switched symlink counts once, and what it means then is watched.
func TestSymlinkIsSwitched(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"1", "2", "3"} {
		put(t, filepath.Join(root, "releases", v, "app.js"), v)
	}
	current := filepath.Join(root, "current")
	os.Symlink("releases/1", current)
	changes := watching(t, Config{Dir: current, Patterns: []string{"**/*.js"}, Delay: delay})
	for _, v := range []string{"2", "3"} {
		os.Symlink("releases/"+v, current+".new")
		os.Rename(current+".new", current)
		if c := next(t, changes, "the switch"); c.n != 1 {
			t.Errorf("%+v", c)
		}
		put(t, filepath.Join(root, "releases", v, "app.js"), "changed")
		next(t, changes, "a file behind the new symlink")
	}
	put(t, filepath.Join(root, "releases/1/app.js"), "nobody cares")
	none(t, changes, current, "a file of a former release")
	// ln -sfn removes, then makes.
	os.Remove(current)
	os.Symlink("releases/1", current)
	next(t, changes, "remove and make")
}

// 10 000 files, and a git checkout that changes 2 000 of them: one change.
func TestCheckout(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	for i := range 10_000 {
		put(t, filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d.js", i%10, i/10%10, i)), "one")
	}
	git("add", ".")
	git("commit", "-qm", "one")
	git("branch", "other")
	for i := range 2000 {
		put(t, filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d.js", i%10, i/10%10, i)), "two")
	}
	git("commit", "-qam", "two")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	changes := watching(t, Config{Dir: dir, Patterns: []string{"**/*.js"}, Delay: 500 * time.Millisecond})
	git("checkout", "-q", "other")
	c := next(t, changes, "the checkout")
	runtime.ReadMemStats(&after)
	t.Logf("%d files of 10 000 in one change; %d kB of heap in use more", c.n, (int(after.HeapInuse)-int(before.HeapInuse))/1024)
	if c.n < 2000 {
		t.Errorf("%+v", c)
	}
	none(t, changes, dir, "the rest of the checkout")
}
