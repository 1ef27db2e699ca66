package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"handoff/internal/load"
)

// A version that listens and answers 500, and one whose health check hangs: each is refused
// with exit code 1 and what the check has got, and no client has reached it.
func TestHealthRefusesAVersion(t *testing.T) {
	t.Parallel()
	for _, contract := range []string{"node", "bind"} {
		t.Run(contract, func(t *testing.T) {
			t.Parallel()
			dir, port := t.TempDir(), freePort(t)
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("mode", "well")
			write("handoff.toml", "health_timeout = \"20s\"\n")
			env := []string{"AT=" + port, "HANDOFF_RUNTIME_DIR=" + t.TempDir()}
			w := start(t, options{dir: dir, env: env, flags: []string{"-n", "2", "--contract", contract,
				"--health", "/healthz", "--health-start-period", "300ms", "--health-interval", "30s"}, app: []string{"node", script(t, `
const http = require('http'), mode = require('fs').readFileSync('mode', 'utf8')
http.createServer((q, r) => {
  r.setHeader('X-Handoff', process.env.HANDOFF_GENERATION)
  if (q.url !== '/healthz') return r.end('ok')
  if (mode === 'hangs') return
  r.statusCode = mode === 'well' ? 200 : 500
  r.end(mode)
}).listen(process.env.AT, '127.0.0.1')`)}})
			var refused atomic.Int64 // answers of a version that was refused
			run := startLoad(load.Config{Addr: "127.0.0.1:" + port, Clients: 4, Observe: func(_ int, h http.Header) {
				if g := h.Get("X-Handoff"); g == "2" || g == "3" {
					refused.Add(1)
				}
			}})
			run.Await(50, testTimeout)
			for _, c := range []struct{ mode, timeout, want string }{{"no database", "20s", "GET /healthz: 500, 'no database'"}, {"hangs", "300ms", "GET /healthz: no answer within 300ms"}} {
				write("mode", c.mode)
				write("handoff.toml", "health_timeout = \""+c.timeout+"\"\n")
				if _, stderr, code := handoff(t, env, "reload"); code != 1 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "slot ") {
					t.Errorf("%s: code %d, %s", c.mode, code, stderr)
				}
			}
			run.Await(50, testTimeout)
			if n := refused.Load(); n > 0 {
				t.Errorf("%d answers of versions that were refused", n)
			}
			write("mode", "well")
			write("handoff.toml", "health_timeout = \"20s\"\n")
			w.reload()
			run.Await(50, testTimeout)
			w.nothingLost(run)
			w.stop()
		})
	}
}
