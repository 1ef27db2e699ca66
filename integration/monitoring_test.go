package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the dashboard and the alert rules name, a running handoff has; and promtool
// likes the rules, and metrics.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "2", "--admin", "127.0.0.1:" + port}})
	w.reload()
	w.addr = "127.0.0.1:" + port
	metrics := w.answer("/metrics")
	docs, err := filepath.Abs("../docs/monitoring")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join(docs, "grafana.json"))), &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Errorf("%d panels, %v", len(dashboard.Panels), err)
	}
	for _, file := range []string{"alerts.yml", "grafana.json"} {
		names := regexp.MustCompile(`\bhandoff_[a-z_]+`).FindAllString(read(t, filepath.Join(docs, file)), -1)
		if len(names) < 8 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			if !strings.Contains(metrics, "\n"+name+" ") && !strings.Contains(metrics, "\n"+name+"{") {
				t.Errorf("%s names %s, which there is not", file, name)
			}
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool here; .ci/run gets it")
	}
	var exprs strings.Builder // each panel's expression as a rule, so that its syntax is looked at
	exprs.WriteString("groups:\n- name: panels\n  rules:\n")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			b, _ := json.Marshal(strings.ReplaceAll(target.Expr, "$instance", ".*"))
			exprs.WriteString("  - record: panel\n    expr: " + string(b) + "\n")
		}
	}
	panels := filepath.Join(t.TempDir(), "panels.yml")
	put(t, panels, exprs.String(), 0o644)
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}, {"check", "metrics"}, {"check", "rules", "--lint=none", panels}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir, cmd.Stdin = docs, strings.NewReader(metrics+"\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	w.stop()
}

// Another user is refused, also where the socket's mode would let them in.
func TestStrangerIsRefused(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("to be another user needs root")
	}
	run := filepath.Join(t.TempDir(), "run")
	w := start(t, options{flags: []string{"-n", "1", "--name", "web"}, env: []string{"HANDOFF_RUNTIME_DIR=" + run}})
	sock := filepath.Join(run, "web.sock")
	info, err := os.Stat(sock)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	own := filepath.Join(t.TempDir(), "handoff")
	copyFile(t, binary, own)
	for _, path := range []string{own, sock} {
		os.Chmod(path, 0o777)
		for dir := filepath.Dir(path); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
	}
	for _, args := range [][]string{{"status", "web"}, {"stop", "web"}, {"reload", "web"}} {
		cmd := exec.Command(own, args...)
		cmd.Env = append(os.Environ(), "HANDOFF_RUNTIME_DIR="+run)
		cmd.SysProcAttr = asNobody(t)
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Contains(string(out), "serving") {
			t.Errorf("%v as nobody: %v\n%s", args, err, out)
		}
	}
	if _, errs, code := handoff(t, []string{"HANDOFF_RUNTIME_DIR=" + run}, "status", "web"); code != 0 {
		t.Errorf("as root: %d %s", code, errs)
	}
	w.stop()
}
