package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"handoff/internal/load"
)

// A program with a metrics port, which comes first, and a main one. MODE has what the next
// generation does with that.
const metricsFirst = `
const http = require('http'), fs = require('fs')
const mode = fs.readFileSync('mode', 'utf8')
const server = (name) => http.createServer((q, r) => { r.setHeader('Connection', 'close'); r.setHeader('X-Handoff', process.env.HANDOFF_GENERATION); r.end('ok') })
server().listen(process.env.METRICS, '127.0.0.1', () => {
  const main = server()
  const serve = () => main.listen(process.env.MAIN, '127.0.0.1')
  if (mode === 'both') serve()
  if (mode === 'late') {
    const look = setInterval(() => { if (fs.existsSync('go')) { clearInterval(look); serve() } }, 20)
  }
  if (mode === 'probe') main.listen(process.env.MAIN, '127.0.0.1', () => main.close())
})
`

// The old generation serves as long as a new one does not accept on every address.
func TestReadyIsEveryAddress(t *testing.T) {
	for _, contract := range []string{"node", "bind"} {
		t.Run(contract, func(t *testing.T) {
			dir, metrics, main := t.TempDir(), freePort(t), freePort(t)
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("mode", "both")
			write("handoff.toml", "ready_timeout = 60\n")
			w := start(t, options{dir: dir, env: []string{"METRICS=" + metrics, "MAIN=" + main},
				flags: []string{"-n", "2", "--contract", contract}, app: []string{"node", script(t, metricsFirst)}})
			at := "127.0.0.1:" + main
			run := startLoad(load.Config{Addr: at, Clients: 4})
			run.Await(50, testTimeout)

			write("handoff.toml", "ready_timeout = 2\n")
			for _, mode := range []string{"never", "probe"}[:times(2, 1)] {
				write("mode", mode)
				w.signal(syscall.SIGUSR2)
				if e := w.await("cluster.failed"); !strings.Contains(e.Reason, at) || !strings.Contains(e.Reason, "--may-drop "+at) {
					t.Errorf("%s: %s", mode, e.Reason)
				}
			}
			write("handoff.toml", "ready_timeout = 60\n")
			write("mode", "late")
			w.signal(syscall.SIGUSR2)
			if e := w.await("worker.incomplete"); !strings.Contains(e.Reason, at) {
				t.Errorf("it lacks %s", e.Reason)
			}
			before := len(w.all("cluster.reloaded"))
			write("go", "")
			w.await("cluster.reloaded")
			if before > 0 {
				t.Error("it has served before it accepted")
			}
			run.Await(50, testTimeout)
			w.nothingLost(run)

			write("mode", "never")
			write("handoff.toml", "ready_timeout = 60\nmay_drop = ["+main+"]\n")
			if e := w.reload(); strings.Contains(e.Addresses, main) || !strings.Contains(e.Addresses, metrics) {
				t.Errorf("it serves %q", e.Addresses)
			}
			w.stop()
		})
	}
}
