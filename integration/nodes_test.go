package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"handoff/internal/load"
)

// nodeEnv is the environment in which a version of Node comes first in PATH; "node"
// is the one that is there already.
func nodeEnv(t *testing.T, name string) []string {
	t.Helper()
	if name == "node" {
		return nil
	}
	modules(t, name)
	bin, err := filepath.Abs(filepath.Join("node_modules", name, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
}

func nodeVersion(t *testing.T, env []string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", "node --version") // by the PATH of env
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

var nodes = []string{"node", "node18", "node22", "node24", "node26"}

// Every Node: new connections without the preload (quiet before drain is what
// saves them, on 26 above all), keep-alive with it.
func TestNodeVersions(t *testing.T) {
	t.Parallel()
	for _, name := range nodes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := nodeEnv(t, name)
			t.Log(nodeVersion(t, env))
			n, workers := times(20, 3), fmt.Sprint(times(4, 2))
			t.Run("new connections, no preload", func(t *testing.T) {
				w := start(t, options{flags: []string{"-n", workers, "--no-preload"}, env: env})
				reloads(t, w, load.Config{Clients: 16}, n)
				w.stop()
			})
			t.Run("keep-alive", func(t *testing.T) {
				w := start(t, options{flags: []string{"-n", workers}, env: env})
				pausing := w.load(load.Config{Mode: load.KeepAlive, Clients: 32, Pause: 10 * time.Millisecond})
				reloads(t, w, load.Config{Mode: load.KeepAlive, Clients: 16}, n)
				w.nothingLost(pausing)
				w.stop()
			})
			// Programs that write a Connection header of their own, in each
			// of the forms that Node takes.
			t.Run("own headers", func(t *testing.T) {
				w := start(t, options{flags: []string{"-n", "2"}, app: []string{data("headers.js")}, env: env})
				var runs []*load.Run
				for _, path := range []string{"/set", "/object", "/array", "/reason", "/chunked", "/writehead"} {
					runs = append(runs, w.load(load.Config{Mode: load.KeepAlive, Clients: 4, Path: path, Rate: paced(100)}))
				}
				for range n {
					w.reload()
					w.retired(2)
				}
				for _, run := range runs {
					w.nothingLost(run)
				}
				w.stop()
			})
		})
	}
}

// A server that listens with exclusive or reusePort, which Node's cluster module leaves to
// the kernel, has a socket of its own that is held, under either contract.
func TestNodeOwnSockets(t *testing.T) {
	all := []struct{ node, listen, contract string }{
		{"node18", `{"exclusive":true}`, "node"}, {"node26", `{"reusePort":true}`, "node"},
		{"node22", `{"exclusive":true}`, "node"}, {"node24", `{"reusePort":true}`, "node"},
		{"node26", `{"exclusive":true}`, "node"}, {"node26", `{"reusePort":true}`, "bind"},
	}
	for _, c := range all[:times(len(all), 2)] {
		t.Run(strings.Join([]string{c.node, c.listen, c.contract}, " "), func(t *testing.T) {
			w := start(t, options{flags: []string{"-n", "2", "--contract", c.contract}, app: []string{data("options.js")},
				env: append(nodeEnv(t, c.node), "PORT="+freePort(t), "LISTEN="+c.listen)})
			reloads(t, w, load.Config{Clients: 4}, times(10, 1))
			w.stop()
		})
	}
}
