package snapshot

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	"handoff/master/fleet"
)

func identity(t *testing.T, pid, id, slot, gen int) Identity {
	t.Helper()
	p, err := linux.OpenPidfd(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	i := Identity{ID: fleet.ID(id), Slot: slot, Gen: fleet.Gen(gen), Notify: "@handoff/test/nobody"}
	if i.PID, i.Start = IdentityOf(p); i.Start == 0 {
		t.Fatal("it has gone")
	}
	return i
}

// A worker that has overwritten its environment is found by the file.
func TestFindByFile(t *testing.T) {
	service, dir := t.Name()+"@"+t.TempDir(), t.TempDir()
	one, at := startOrphan(t, "", 7, 0, 3, "", "127.0.0.1:0") // as if it had overwritten that
	two, _ := startOrphan(t, service, 8, 1, 3, "@handoff/test/nobody", at[0].String())
	gone := identity(t, two, 9, 0, 3)
	gone.Start++ // another process had the pid
	before := NewWorkersFile(dir, service, "before")
	if err := before.Save([]Identity{identity(t, one, 7, 0, 3), gone}); err != nil {
		t.Fatal(err)
	}

	s := search(t, service)
	if r, d, found := s.Find(); !found || len(r.Workers) != 1 {
		t.Errorf("without the file: %+v", r.Workers)
	} else {
		closeDescriptors(d)
	}
	s.File = NewWorkersFile(dir, service, "now")
	r, d, found := s.Find()
	if !found {
		t.Fatal("none found")
	}
	defer closeDescriptors(d)
	pids := map[int]int{}
	for _, w := range r.Workers {
		pids[int(w.ID)] = w.PID
	}
	if want := map[int]int{7: one, 8: two}; !reflect.DeepEqual(pids, want) {
		t.Errorf("found %v, want %v", pids, want)
	}
	if len(r.Addresses) != 1 || len(r.Addresses[0].Sockets) != 2 {
		t.Errorf("addresses %+v", r.Addresses)
	}
	if len(r.Generations) != 1 {
		t.Errorf("the other one's environment is whole: %+v", r.Generations)
	}
	// It stays until those who are in it are in another, or gone.
	if err := s.File.Save([]Identity{identity(t, two, 8, 1, 3)}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(before.path); err != nil {
		t.Error("removed, with a worker that nobody else knows")
	}
	s.File.Found()
	if err := s.File.Save([]Identity{identity(t, one, 7, 0, 3)}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(before.path); err == nil {
		t.Error("still there")
	}
	s.File.Remove()
	if left, _ := os.ReadDir(filepath.Join(dir, "workers")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// No environment is whole: the record has none, and the master resolves its command.
func TestFindWithoutEnvironment(t *testing.T) {
	service, dir := t.Name()+"@"+t.TempDir(), t.TempDir()
	one, _ := startOrphan(t, "", 7, 0, 3, "", "127.0.0.1:0")
	if err := NewWorkersFile(dir, service, "before").Save([]Identity{identity(t, one, 7, 0, 3)}); err != nil {
		t.Fatal(err)
	}
	s := search(t, service)
	s.File = NewWorkersFile(dir, service, "now")
	r, d, found := s.Find()
	closeDescriptors(d)
	if !found || len(r.Generations) != 0 || len(r.Workers) != 1 || r.Fleet.Live != 3 {
		t.Errorf("%v %+v", found, r)
	}
}

func TestWorkersFile(t *testing.T) {
	dir := t.TempDir()
	self := identity(t, os.Getpid(), 1, 0, 1)
	for name, f := range map[string]*WorkersFile{
		"no folder": NewWorkersFile("", "web@/", "x"), "relative": NewWorkersFile("run", "web@/", "x"),
		"no instance": NewWorkersFile(dir, "web@/", ""), "a path": NewWorkersFile(dir, "web@/", "../x"),
	} {
		if f != nil || f.Save([]Identity{self}) != nil || len(f.Found()) > 0 {
			t.Error(name)
		}
		f.Remove()
	}
	f := NewWorkersFile(dir, "web@/", "one")
	if err := f.Save([]Identity{self}); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{f.path: 0o600, f.dir: 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, %v", info, err)
		}
	}
	look := func() map[int]Identity { return NewWorkersFile(dir, "web@/", "two").Found() }
	if got := look(); !reflect.DeepEqual(got, map[int]Identity{self.PID: self}) {
		t.Errorf("%v", got)
	}
	if got := NewWorkersFile(dir, "another@/", "two").Found(); len(got) > 0 {
		t.Errorf("%v: of another service", got)
	}
	// What else may be there is not waited for, and not followed.
	unix.Mkfifo(filepath.Join(f.dir, "fifo"), 0o600)
	os.Symlink(f.path, filepath.Join(f.dir, "link"))
	os.Chmod(f.dir, 0o755)
	if got := look(); len(got) > 0 {
		t.Errorf("%v: others can look into the folder", got)
	}
	if err := f.Save(nil); err == nil {
		t.Error("written where others can look")
	}
	os.Chmod(f.dir, 0o700)
	if got := look(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	// Of before the machine's last start, or of who has gone: removed.
	b, _ := os.ReadFile(f.path)
	os.WriteFile(f.path, []byte(string(b[:len(b)-1])+`,"boot":"another"}`), 0o600)
	if got := look(); len(got) > 0 {
		t.Errorf("%v: of another start of the machine", got)
	}
	if _, err := os.Stat(f.path); err == nil {
		t.Error("it is still there")
	}
}
