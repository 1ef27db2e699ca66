package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// handoff runs the command line, and returns its outputs and exit code.
func handoff(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := handoffCommand(env, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func handoffCommand(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

func TestStatus(t *testing.T) {
	t.Parallel()
	run := "HANDOFF_RUNTIME_DIR=" + filepath.Join(t.TempDir(), "run")
	if out, errs, code := handoff(t, []string{run}, "status"); code != 3 || out != "" || !strings.Contains(errs, "not running") || strings.Count(errs, "\n") != 1 {
		t.Errorf("nothing runs: exit code %d, %q, %q", code, out, errs)
	}
	w := start(t, options{flags: []string{"-n", "2", "--name", "web"}, app: []string{goProgram("gosdk")},
		env: []string{"PORT=" + freePort(t), run, "SECRET=hunter2"}})
	var s struct {
		Schema     int
		State      string
		PID        int
		Generation int
		Ready      int
		Addresses  []struct{ Address, Balance string }
		Workers    []struct {
			Slot, PID, Generation int
			Phase, Status         string
			RSS                   int64 `json:"rss_bytes"`
			InService             bool  `json:"in_service"`
		}
	}
	ask := func() {
		t.Helper()
		out, errs, code := handoff(t, []string{run}, "status", "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v, %q, %q", code, err, out, errs)
		}
		if strings.Contains(out, "hunter2") {
			t.Error("the environment is in the status")
		}
	}
	ask()
	if s.Schema != 1 || s.State != "serving" || s.PID != w.pid() || s.Ready != 2 || len(s.Workers) != 2 || s.Addresses[0].Address != w.addr || s.Addresses[0].Balance != "even" {
		t.Errorf("%+v", s)
	}
	for i, ws := range s.Workers {
		if ws.Slot != i || ws.Phase != "serving" || !ws.InService || ws.RSS < 1<<20 || ws.Status != "serves on "+w.addr {
			t.Errorf("%+v", ws)
		}
	}
	w.reload()
	w.retired(2)
	ask()
	if s.Generation != 2 || s.Workers[0].Generation != 2 {
		t.Errorf("%+v", s)
	}
	out, _, _ := handoff(t, []string{run}, "status", "web")
	if !strings.HasPrefix(out, "web: serving, 2 of 2 slots ready, generation 2, pid ") || strings.Count(out, "\n") != 6 {
		t.Errorf("%s", out)
	}
	if _, errs, code := handoff(t, []string{run}, "status", "other"); code != 3 || !strings.Contains(errs, `"other"`) {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := handoff(t, []string{run}, "status", "../x"); code != 2 || !strings.Contains(errs, "no such file or directory") {
		t.Errorf("%d %s", code, errs)
	}
	w.stop()
	if _, _, code := handoff(t, []string{run}, "status"); code != 3 {
		t.Errorf("stopped: exit code %d, want 3", code)
	}
	// The folders of notify sockets and of who the workers are, are one for all services of
	// a user: they stay, empty.
	dir := strings.TrimPrefix(run, "HANDOFF_RUNTIME_DIR=")
	left, _ := filepath.Glob(filepath.Join(dir, "*/*"))
	others, _ := os.ReadDir(dir)
	for _, e := range others {
		if name := e.Name(); name != "notify" && name != "workers" {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// The socket is this user's and root's: the mode says so, and the credentials
// are looked at besides.
func TestControlIsPrivate(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir, err := os.MkdirTemp("/tmp", "run")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w := start(t, options{flags: []string{"-n", "1", "--name", "web"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t), "HANDOFF_RUNTIME_DIR=" + dir}})
	path := filepath.Join(dir, "web.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// Let somebody else reach the socket: the check of credentials is left.
	os.Chmod(dir, 0o755)
	os.Chmod(path, 0o666)
	curl := exec.Command("curl", "-sS", "--unix-socket", path, "http://handoff/v1/status")
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := curl.CombinedOutput(); err == nil {
		t.Errorf("a stranger is told %s", out)
	}
	out, err := exec.Command("curl", "-sS", "--unix-socket", path, "http://handoff/v1/status").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"schema":1`) {
		t.Errorf("%v %s", err, out)
	}
	if out, _ := exec.Command("curl", "-sS", "--unix-socket", path, "http://handoff/nonsense").CombinedOutput(); !strings.Contains(string(out), "unknown request GET /nonsense") {
		t.Errorf("%s", out)
	}
	w.stop()
}
