package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A release is the same bytes twice, its checksums hold, and its package installs into
// a root and runs from there.
func TestRelease(t *testing.T) {
	if !*long {
		t.Skip("with -long: it builds everything twice")
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	var sums [2]string
	for i, dir := range dirs {
		cmd := exec.Command("tools/release/build.sh", dir)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sums[i] = read(t, filepath.Join(dir, "SHA256SUMS"))
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
	check := exec.Command("sha256sum", "-c", "SHA256SUMS")
	check.Dir = dirs[0]
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"linux-amd64.tar.gz", "linux-arm64.tar.gz", "amd64.deb", "arm64.deb", "x86_64.rpm", "aarch64.rpm", "amd64.cdx.json", "handoff-node-", "handoff-linux-x64-", "handoff-linux-arm64-"} {
		if !strings.Contains(sums[0], want) {
			t.Errorf("there is no %s:\n%s", want, sums[0])
		}
	}
	debs, err := filepath.Glob(filepath.Join(dirs[0], "*_amd64.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("dpkg wants root")
	}
	root := t.TempDir()
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("dpkg", "--root="+root, "--force-script-chrootless", "--force-depends", "-i", debs[0]).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	installed := filepath.Join(root, "usr/bin/handoff")
	out, err := exec.Command(installed, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "handoff 0.") {
		t.Errorf("%v: %s", err, out)
	}
	for _, name := range []string{"usr/share/man/man1/handoff.1.gz", "usr/share/man/man1/handoff-run.1.gz", "usr/share/bash-completion/completions/handoff", "usr/share/zsh/vendor-completions/_handoff",
		"usr/lib/systemd/system/handoff@.service", "usr/share/doc/handoff/copyright"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "usr/bin/rackadmin")); err != nil || to != "/usr/bin/handoff" {
		t.Errorf("rackadmin: %q, %v", to, err)
	}
	if out, err := exec.Command("dpkg", "--root="+root, "--force-script-chrootless", "-r", "handoff").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(installed); err == nil {
		t.Error("it is still there after its removal")
	}
}
