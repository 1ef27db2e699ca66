package admin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A command means a service by name, pid or folder, or the one whose folder it is in.
func TestWhich(t *testing.T) {
	runtimeDir(t)
	web, api, link := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(api, link); err != nil {
		t.Fatal(err)
	}
	at := func(about map[string]any) func(*About) {
		return func(a *About) { a.Config = func() any { return about } }
	}
	start(t, "web", at(map[string]any{"cwd": web})).script.status.PID = 71
	start(t, "api", at(map[string]any{"cwd": "/", "folder": link, "file": ""})).script.status.PID = 72
	for dir, words := range map[string]map[string]string{
		web:               {"": "web", ".": "web", "web": "web", "71": "web", "72": "api", api: "api", link: "api", link + "/": "api", "api": "api"},
		"/":               {"": "api", ".": "api", web: "web"}, // its workers run there
		filepath.Dir(web): {"": "several are running; choose one: api, web"},
		api:               {"": "api", "73": "not running", "./none": "no such file", filepath.Dir(link): "not running", "other": "other"},
	} {
		t.Chdir(dir)
		for word, want := range words {
			c, err := Which(word)
			if err == nil && c.Name != want || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("in %s, %q: got %v, %v; want %s", dir, word, c, err, want)
			}
		}
	}
	start(t, "api2", at(map[string]any{"file": filepath.Join(api, "handoff.toml")}))
	t.Chdir(api)
	if _, err := Which(""); !errors.Is(err, ErrWhich) || !strings.Contains(err.Error(), "in this folder; choose one: api, api2") {
		t.Errorf("%v", err)
	}
}

// Root is answered by everybody's services, which may claim any folder.
func TestWhichIsBelieved(t *testing.T) {
	runtimeDir(t)
	dir := t.TempDir()
	start(t, "web", func(a *About) { a.Config = func() any { return map[string]any{"cwd": dir} } })
	at, err := folderOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := find(t, "web")
	if !at.runs(c) {
		t.Error("does not run there")
	}
	c.UID = os.Geteuid() + 4711
	if at.runs(c) {
		t.Error("another user's service is believed")
	}
}

func TestFreeName(t *testing.T) {
	dir := runtimeDir(t)
	if free := FreeName("web"); free != "web" {
		t.Error(free)
	}
	start(t, "web").script.status.PID = 71
	start(t, "web-2").script.status.PID = 72
	if free, pid := FreeName("web"), PIDOf("web"); free != "web-3" || pid != 71 {
		t.Errorf("%s, %d", free, pid)
	}
	long := strings.Repeat("a", maxName)
	start(t, long)
	if free := FreeName(long); free != long[2:]+"-2" || CheckName(free) != nil {
		t.Errorf("%s", free)
	}
	if free := FreeName("../web"); free != "../web" { // refused where it is used
		t.Error(free)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "old.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if free := FreeName("old"); free != "old" { // of one that was killed
		t.Error(free)
	}
	if err := os.Symlink(filepath.Join(dir, "web.sock"), filepath.Join(dir, "part.sock")); err != nil {
		t.Fatal(err)
	}
	if free := FreeName("part"); free != "part-2" {
		t.Error(free)
	}
}
