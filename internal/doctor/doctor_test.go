package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/bindintercept"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bindintercept.Word { // the trampoline, as in handoff itself
		os.Exit(bindintercept.Trampoline(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// machine has everything; sysctls replace its own.
func machine(release string, sysctls map[string]string) Machine {
	all := map[string]string{"net/ipv4/tcp_migrate_req": "0", "net/core/somaxconn": "4096", "fs/inotify/max_user_watches": "524288",
		"fs/inotify/max_user_instances": "128", "net/unix/max_dgram_qlen": "512"}
	for k, v := range sysctls {
		all[k] = v
	}
	return Machine{Release: release, Sysctl: func(path string) string { return all[path] }, Files: func() (uint64, uint64) { return 1024, 65536 }}
}

func TestVerdicts(t *testing.T) {
	few := machine("6.15.0", nil)
	few.Files = func() (uint64, uint64) { return 256, 1024 }
	for _, c := range []struct {
		check string
		m     Machine
		state State
		what  string
	}{
		{"kernel", machine("4.19.0-1", nil), Missing, "Linux 4.19.0-1"},
		{"kernel", machine("5.8.18", nil), Missing, "Linux 5.8"},
		{"kernel", machine("5.9.0", nil), Worse, "Linux 5.9.0"},
		{"kernel", machine("6.8.0", nil), Worse, "Linux 6.8.0"},
		{"kernel", machine("6.9.0-rc1", nil), OK, "Linux 6.9.0-rc1"},
		{"pidfd", machine("6.14.9", nil), Worse, "do not report the exit code of adopted workers"},
		{"pidfd", machine("6.15.0", nil), OK, "report exit codes"},
		{"tcp_migrate_req", machine("6.15.0", nil), Info, "handoff does not need it"},
		{"tcp_migrate_req", machine("6.15.0", map[string]string{"net/ipv4/tcp_migrate_req": "1"}), Info, "net.ipv4.tcp_migrate_req=1"},
		{"backlog", machine("6.15.0", nil), OK, "somaxconn=4096"},
		{"backlog", machine("6.15.0", map[string]string{"net/core/somaxconn": "128"}), Worse, "somaxconn=128"},
		{"open files", machine("6.15.0", nil), OK, "soft limit 1024, hard limit 65536"},
		{"open files", few, Worse, "soft limit 256, hard limit 1024"},
		{"watching files", machine("6.15.0", nil), OK, "524288 watches and 128 instances"},
		{"watching files", machine("6.15.0", map[string]string{"fs/inotify/max_user_watches": "8192"}), Worse, "8192 watches"},
		{"keeper's queue", machine("6.15.0", nil), OK, "max_dgram_qlen=512"},
		{"keeper's queue", machine("6.15.0", map[string]string{"net/unix/max_dgram_qlen": "4"}), Worse, "max_dgram_qlen=4"},
	} {
		v := look(t, c.check, c.m)
		if v.State != c.state || !strings.Contains(v.What, c.what) || (v.Advice != "") != (c.state == Worse || c.state == Missing) {
			t.Errorf("%s, %s: %+v; want %s, %q", c.check, c.m.Release, v, c.state, c.what)
		}
	}
}

func look(t *testing.T, name string, m Machine) Verdict {
	t.Helper()
	for _, c := range Checks() {
		if c.Name == name {
			return c.Look(m)
		}
	}
	t.Fatalf("no check %s", name)
	return Verdict{}
}

// A machine that runs these tests has everything that is tried.
func TestThisMachine(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(t.TempDir(), "state"))
	all, missing := Examine(This())
	if missing || len(all) != len(Checks()) {
		t.Errorf("%v %+v", missing, all)
	}
	for _, f := range all {
		if f.What == "" || f.State != OK && f.State != Worse && f.State != Info {
			t.Errorf("%+v", f)
		}
		t.Logf("%-8s %-22s %s", f.State, f.Name, f.What)
	}
	if os.Geteuid() == 0 { // as in CI
		for _, name := range []string{"steering", "bind contract", "descriptors", "drain preload", "control socket"} {
			if v := look(t, name, This()); v.State != OK {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	t.Setenv("HANDOFF_RUNTIME_DIR", filepath.Join(file, "run"))
	t.Setenv("HANDOFF_STATE_DIR", filepath.Join(file, "state"))
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if v := look(t, "control socket", This()); v.State != Worse || !strings.Contains(v.Advice, "HANDOFF_RUNTIME_DIR") {
		t.Errorf("%+v", v)
	}
	if v := look(t, "node", This()); v.State != Info || !strings.Contains(v.What, "not found in PATH") {
		t.Errorf("%+v", v)
	}
	os.WriteFile(filepath.Join(bin, "node"), []byte("#!/bin/sh\necho v16.20.0\n"), 0o755)
	if v := look(t, "node", This()); v.State != Worse || v.What != "v16.20.0" {
		t.Errorf("%+v", v)
	}
}
