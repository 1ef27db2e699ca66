package hostile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Bad days of an upgrade: what is found at the binary's path.
func binaryRows() []row {
	return []row{
		{group: "day", name: "bad-binaries", tries: "an upgrade to a binary that is empty, cut off, of another architecture, not executable, a folder, a loop of links, a pipe, being written, hangs or ends at once", short: true, run: badBinaries},
		{group: "day", name: "binary-replaced", tries: "upgrades while the binary is replaced again and again", run: binaryReplacedInUpgrades},
		{group: "day", name: "binary-fails-late", tries: "an upgrade to a binary that says that it can take over, and then hangs, crashes, or exits with 0", run: binaryFailsLate},
		{group: "day", name: "binary-dies", tries: "an upgrade to a binary whose masters crash as soon as they have taken over, or hang", run: binaryDies},
		{group: "day", name: "records-of-earlier", tries: "upgrades from binaries of earlier commits, and back to them", run: recordsOfEarlier},
		{group: "day", name: "records-of-later", tries: "an upgrade to an earlier binary that does not know fields of the record, or cannot read its version", run: recordsOfLater},
	}
}

// installed starts a service whose binary is a file of its own.
func installed(t *testing.T, from string, o options) (d *badDay, path string) {
	t.Helper()
	dir := folder(t)
	os.Chmod(dir, 0o755)
	path = filepath.Join(dir, "handoff")
	replace(t, path, content(t, from), 0o755)
	o.behind = []string{"sh", "-c", `shift; exec ` + path + ` "$@"`, "sh"}
	o.flags = append(o.flags, "--upgrade-timeout", "3s")
	return startDay(t, false, o), path
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace replaces what is at a path by another file.
func replace(t *testing.T, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		os.Remove(path)
	}
	err := os.WriteFile(path+".new", text, mode)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refused is what the log says of the last failed upgrade, as the table has it.
func (d *badDay) refused(path string) string {
	all := d.said("upgrade.failed")
	if len(all) == 0 {
		return ""
	}
	text := strings.ReplaceAll(all[len(all)-1].Msg, path, "/usr/bin/handoff")
	return "`upgrade.failed` " + regexp.MustCompile("pid=[0-9]+").ReplaceAllString(text, "pid=N")
}

func badBinaries(t *testing.T, r *report) {
	d, path := installed(t, binary, options{})
	good := content(t, path)
	other := append([]byte(nil), good...)
	if other[18] = 183; good[18] == 183 { // e_machine: AArch64, or x86-64
		other[18] = 62
	}
	var writer *os.File
	c := d.clients()
	c.more(t, 50)
	master := d.current()
	instead := func(make func() error) func() {
		return func() {
			os.Remove(path)
			if err := make(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, k := range []struct{ what, says string }{
		{"empty", "exec format error"}, {"cut off", ""}, {"another architecture", "exec format error"}, {"not executable", "permission denied"},
		{"folder", "is a directory"}, {"loop", "too many levels"}, {"pipe", "permission denied"}, {"ends", "exit"}, {"hangs", "timed out"}, {"written", "text file busy"},
	} {
		map[string]func(){
			"empty":                func() { replace(t, path, nil, 0o755) },
			"cut off":              func() { replace(t, path, good[:len(good)/3], 0o755) },
			"another architecture": func() { replace(t, path, other, 0o755) },
			"not executable":       func() { replace(t, path, good[:len(good)-1], 0o644) },
			"folder":               instead(func() error { return os.Mkdir(path, 0o755) }),
			"loop":                 instead(func() error { return os.Symlink("handoff", path) }),
			"pipe":                 instead(func() error { return unix.Mkfifo(path, 0o755) }),
			"ends":                 func() { replace(t, path, []byte("#!/bin/true\n"), 0o755) },
			"hangs":                func() { replace(t, path, []byte("#!/bin/sh\nexec sleep 20\n"), 0o755) },
			"written": func() {
				replace(t, path, append(good, 0), 0o755)
				var err error
				if writer, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
					t.Fatal(err)
				}
			},
		}[k.what]()
		out, err := d.cli("upgrade")
		said := d.await("upgrade.failed", i+1)
		t.Logf("%s: %s", k.what, said.Msg)
		if err == nil || !strings.Contains(said.Reason, k.says) {
			t.Errorf("%s: the log says %v, the command %q", k.what, said, out)
		}
	}
	writer.Close()
	if now := d.current(); now != master || len(d.said("cluster.reloading")) > 0 {
		t.Errorf("the master is %d, and was %d; %d reloads", now, master, len(d.said("cluster.reloading")))
	}
	d.must("upgrade") // what was being written is complete
	d.over(c, r)
	r.says(d.refused(path))
}

func binaryReplacedInUpgrades(t *testing.T, r *report) {
	d, path := installed(t, binary, options{})
	c := d.clients()
	c.more(t, 50)
	good := content(t, path)
	done, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Add(1)
	go func() { // ends with done
		defer ended.Done()
		for {
			select {
			case <-done:
				return
			default:
			}
			os.WriteFile(path+".new", good, 0o755)
			os.Rename(path+".new", path)
		}
	}()
	failed := 0
	for range 10 {
		if out, err := d.cli("upgrade"); err != nil {
			failed++
			t.Logf("%s", out)
		}
	}
	close(done)
	ended.Wait()
	t.Logf("%d of 10 upgrades failed", failed)
	d.must("upgrade")
	d.over(c, r)
	r.says(cmp.Or(d.refused(path), d.says("master.upgraded")))
}

func binaryFailsLate(t *testing.T, r *report) {
	bad := content(t, faulty(t))
	d, path := installed(t, binary, options{env: []string{"HANDOFF_KEEPER_WAITS=backoff-max=200ms,candidate=2s"}})
	c := d.clients()
	c.more(t, 50)
	replace(t, path, bad, 0o755)
	for i, fault := range []string{"hang", "crash", "exit"} {
		replace(t, path+".fault", []byte(fault+" taken"), 0o644)
		if out, err := d.cli("upgrade"); err == nil {
			t.Errorf("%s: the command says %q", fault, out)
		}
		t.Log(d.await("upgrade.failed", 2*i+1).Msg)
		unix.Kill(d.pid, unix.SIGUSR2)
		d.await("upgrade.failed", 2*i+2)
	}
	if n := len(d.said("cluster.reloading")); n > 0 {
		t.Errorf("%d reloads after failed upgrades", n)
	}
	os.Remove(path + ".fault")
	d.must("upgrade")
	d.over(c, r)
	r.says(d.refused(path))
}

func binaryDies(t *testing.T, r *report) {
	bad := content(t, faulty(t))
	d, path := installed(t, binary, options{env: []string{"HANDOFF_KEEPER_WAITS=backoff-max=200ms,candidate=2s"}})
	c := d.clients()
	c.more(t, 50)
	replace(t, path, bad, 0o755)
	for i, fault := range []string{"crash", "hang"} {
		replace(t, path+".fault", []byte(fault+" adopted"), 0o644)
		d.cli("upgrade")
		t.Log(d.await("upgrade.failed", i+1).Msg)
		c.more(t, 50)
	}
	os.Remove(path + ".fault")
	d.must("upgrade")
	d.over(c, r)
	r.says(d.refused(path))
}

// earlier are commits of which the records must be read, each a day's.
var earlier = []string{"cd5948f", "0d02cc3"}

func recordsOfEarlier(t *testing.T, r *report) {
	for _, commit := range earlier {
		t.Run(commit, func(t *testing.T) {
			old := builtOf(t, commit)
			d, path := installed(t, old, options{})
			c := d.clients()
			c.more(t, 50)
			replace(t, path, content(t, binary), 0o755)
			d.must("upgrade")
			d.await("master.upgraded")
			d.reload()
			replace(t, path, content(t, old), 0o755) // and back
			d.must("upgrade")
			d.await("master.upgraded", 2)
			d.reload()
			replace(t, path, content(t, binary), 0o755)
			d.reload()
			d.await("master.upgraded", 3)
			d.over(c, r)
			r.says(d.says("master.upgraded"))
		})
	}
}

func recordsOfLater(t *testing.T, r *report) {
	later := faulty(t)
	d, path := installed(t, later, options{})
	c := d.clients()
	c.more(t, 50)
	replace(t, path, content(t, binary), 0o755) // which ignores the fields that it does not know
	d.must("upgrade")
	d.await("master.upgraded")
	replace(t, path+".record", []byte("2"), 0o644)
	replace(t, path, content(t, later), 0o755)
	d.must("upgrade") // reads version 1, and writes version 2
	d.await("master.upgraded", 2)
	master := d.current()
	replace(t, path, content(t, binary), 0o755)
	out, err := d.cli("upgrade")
	if err == nil || d.current() != master {
		t.Errorf("an upgrade to a binary that cannot read the record: %q", out)
	}
	said := d.await("upgrade.failed")
	t.Log(said.Msg)
	r.says(d.refused(path))
	c.more(t, 50)
	replace(t, path, content(t, later), 0o755)
	d.over(c, r)
}

// faulty builds a handoff of a later day, with faults that the file PATH.fault asks for, and
// a record of the version that the file PATH.record has.
func faulty(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := map[string]string{}
	change := func(file string, pairs ...string) {
		text := ""
		if len(pairs) == 1 {
			text = pairs[0]
		} else {
			text = string(content(t, filepath.Join(root, file)))
			for i := 0; i < len(pairs); i += 2 {
				if !strings.Contains(text, pairs[i]) {
					t.Fatalf("%s has no %q any more", file, pairs[i])
				}
				text = strings.Replace(text, pairs[i], pairs[i+1], 1)
			}
		}
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		replace(t, to, []byte(text), 0o644)
		files[filepath.Join(root, file)] = to
	}
	const imports, more = "import (\n", "import (\n\tfaults \"handoff/internal/linux\"\n"
	change("internal/linux/fault.go", faults)
	change("cmd/handoff/serve.go", imports, more, "err = stepUp(s.up)\n", "err = stepUp(s.up)\nfaults.Fault(\"taken\")\n")
	change("master/master.go", imports, more, "m.keep.Ready()\n", "m.keep.Ready()\nm.keep.Flush()\nfaults.Fault(\"adopted\")\n")
	change("master/snapshot/record.go", imports, more, "const Version = 1", "var Version = faults.RecordVersion()",
		"type Record struct {\n", "type Record struct {\nLater struct { List [2]int; Map map[string]string } `json:\"later\"`\n")
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(dir, "overlay.json"), overlay, 0o644)
	to := filepath.Join(dir, "handoff")
	goBuild(t, root, "-overlay", filepath.Join(dir, "overlay.json"), "-tags", "nethttpomithttp2", "-o", to, "handoff/cmd/handoff")
	return to
}

const faults = `package linux

import ("os"; "strings"; "golang.org/x/sys/unix")

func Fault(at string) {
	b, _ := os.ReadFile(os.Args[0] + ".fault")
	what, where, _ := strings.Cut(string(b), " ")
	if where != at { return }
	switch what {
	case "hang": forever()
	case "panic": panic("a fault")
	case "exit": os.Exit(0)
	case "crash":
		unix.Kill(os.Getpid(), unix.SIGBUS)
		forever()
	}
}

func forever() { for { unix.Poll(nil, -1) } }

func RecordVersion() int {
	if b, _ := os.ReadFile(os.Args[0] + ".record"); string(b) == "2" { return 2 }
	return 1
}
`

// builtOf builds the handoff of an earlier commit.
func builtOf(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("git -C ../.. archive %s | tar x -C %s", commit, dir)).CombinedOutput(); err != nil || len(out) > 0 {
		t.Skipf("no commit %s here: %v: %s", commit, err, out)
	}
	to := filepath.Join(dir, "handoff.built")
	goBuild(t, dir, "-o", to, "./cmd/handoff")
	return to
}

func goBuild(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}
