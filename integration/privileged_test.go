package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/load"
)

// Workers of --user get no port below 1024 by root's rights, under either contract, unless
// root names it.
func TestPrivilegedPorts(t *testing.T) {
	t.Parallel()
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); os.Geteuid() != 0 || err != nil || strings.TrimSpace(string(b)) != "1024" {
		t.Skip("needs root, and ports that are root's")
	}
	dir, err := os.MkdirTemp("", "privileged")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	put(t, filepath.Join(dir, "server.js"), `require('http').createServer((q, s) => s.end('ok')).listen(process.env.PORT, '127.0.0.1')`, 0o644)
	script := filepath.Join(dir, "server.js")
	for port, app := range map[string][]string{"1019": {script}, "1018": {"sh", "-c", "exec node " + script}} {
		t.Run(map[string]string{"1019": "node", "1018": "bind"}[port], func(t *testing.T) {
			t.Parallel()
			env := []string{"PORT=" + port, "HANDOFF_STATE_DIR=" + filepath.Join(dir, "state")}
			cmd := exec.Command(binary, append([]string{"run", "-n", "1", "--max-failures", "1", "--user", "nobody", "--"}, app...)...)
			cmd.Env = append(cmd.Environ(), append(env, "HANDOFF_RUNTIME_DIR="+t.TempDir())...)
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "port "+port+" is privileged") || !strings.Contains(string(out), "--allow "+port) {
				t.Errorf("%v: %s", err, out)
			}
			w := start(t, options{flags: []string{"-n", "1", "--user", "nobody", "--allow", port}, app: app, dir: dir, env: env})
			run := w.load(load.Config{Clients: 2})
			run.Await(5, testTimeout)
			w.nothingLost(run)
			w.stop()
		})
	}
}
