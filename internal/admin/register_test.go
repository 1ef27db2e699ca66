package admin

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// An embedded handoff is found where the other services are, as long as it runs.
func TestRegister(t *testing.T) {
	usual, own := t.TempDir(), t.TempDir()
	embed := func(dir string) {
		t.Setenv(DirVariable, dir)
		t.Setenv(ParentDirVariable, usual)
	}
	seen := func() []string {
		t.Setenv(DirVariable, usual)
		return Names()
	}
	embed(own)
	start(t, "app")
	remove, err := Register("app")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Register("app"); err != nil || again == nil { // by the next master
		t.Error(err)
	}
	if names := seen(); !slices.Equal(names, []string{"app"}) {
		t.Errorf("found %v", names)
	}
	if c, err := Find(""); err != nil || c.Name != "app" {
		t.Errorf("%v, %v", c, err)
	}
	if c, _ := Find("app"); c != nil {
		if _, err := c.Status(); err != nil {
			t.Error(err)
		}
	}
	// A second one of that name.
	embed(t.TempDir())
	start(t, "app")
	second, err := Register("app")
	if err != nil {
		t.Fatal(err)
	}
	name := "app-" + strconv.Itoa(os.Getpid())
	if names := seen(); !slices.Equal(names, []string{"app", name}) {
		t.Errorf("found %v", names)
	}
	// Without a name, the service that is no part of a program is meant.
	start(t, "web")
	if c, err := Find(""); err != nil || c.Name != "web" {
		t.Errorf("%v, %v", c, err)
	}
	second()
	if names := seen(); !slices.Equal(names, []string{"app", "web"}) {
		t.Errorf("found %v", names)
	}
	// One that was killed is removed by who comes next.
	stale := filepath.Join(usual, "stale.sock")
	if err := os.Symlink("/no/such.sock", stale); err != nil {
		t.Fatal(err)
	}
	if names := seen(); slices.Contains(names, "stale") {
		t.Errorf("found %v", names)
	}
	embed(own)
	if _, err := Register("app"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(stale); err == nil {
		t.Error("still there")
	}
	remove()
	if left, _ := filepath.Glob(filepath.Join(usual, "app*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
