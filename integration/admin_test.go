package integration

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"handoff/internal/load"
)

// fetch is an answer of --admin.
func fetch(t *testing.T, url, token string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := fresh.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// sampled is one sample of /metrics; labels as they stand there.
func sampled(text, sample string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, sample+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	addr := "127.0.0.1:" + freePort(t)
	app := filepath.Join(t.TempDir(), "app.js")
	put(t, app, "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)", 0o644)
	w := start(t, options{flags: []string{"-n", "2", "--name", "web", "--admin", addr, "--keepalive-linger", "100ms", "--max-failures", "1"}, app: []string{app},
		env: []string{"PORT=" + freePort(t), "SECRET=hunter2"}})
	if code, body := fetch(t, "http://"+addr+"/livez", ""); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := fetch(t, "http://"+addr+"/readyz", ""); code != 200 || body != "ok: 2 of 2 slots ready\n" {
		t.Errorf("%d %q", code, body)
	}
	run := w.load(load.Config{Clients: 4})
	w.reload()
	w.retired(2)
	run.Await(100, testTimeout)
	// A probe is not refused between two masters.
	probes := startLoad(load.Config{Addr: addr, Path: "/livez", Clients: 2})
	for range 3 {
		w.killMaster()
		probes.Await(20, testTimeout)
	}
	for class, n := range probes.Stop().Failed {
		if class == load.Refused && n > 0 {
			t.Errorf("%d probes were refused", n)
		}
	}
	put(t, app, "process.exit(3)", 0o644)
	w.signal(syscall.SIGUSR2)
	w.await("cluster.failed")
	code, text := fetch(t, "http://"+addr+"/metrics", "")
	if code != 200 || strings.Contains(text, "hunter2") {
		t.Errorf("%d\n%s", code, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil || len(families) < 20 {
		t.Errorf("%d families, %v", len(families), err)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	for sample, want := range map[string]string{
		`handoff_up{service="web"}`:                      "1",
		`handoff_generation{service="web"}`:              "2",
		`handoff_workers{phase="serving"}`:               "2",
		`handoff_reloads_total{outcome="served"}`:        "1",
		`handoff_reloads_total{outcome="failed"}`:        "1",
		`handoff_master_restarts_total`:                  "3",
		`handoff_reload_duration_seconds_count`:          "1",
		`handoff_worker_ready_seconds_count`:             "4",
		`handoff_worker_ready_seconds_bucket{le="+Inf"}`: "4",
		`handoff_slot_ready{slot="1"}`:                   "1",
		`handoff_connections_stranded_total`:             "0",
	} {
		if got := sampled(text, sample); got != want {
			t.Errorf("%s is %q, want %s", sample, got, want)
		}
	}
	// Of the generation that failed, one may have been drained.
	if got := sampled(text, `handoff_worker_drain_seconds_count`); got != "2" && got != "3" {
		t.Errorf("%s drains were measured", got)
	}
	w.nothingLost(run)
	// What is not served is named.
	for _, pid := range w.workers() {
		syscall.Kill(pid, syscall.SIGSTOP)
		syscall.Kill(pid, syscall.SIGKILL)
	}
	w.await("worker.crashed")
	w.await("worker.crashed")
	if code, body := fetch(t, "http://"+addr+"/readyz", ""); code != 200 && (code != 503 || !strings.Contains(body, "is not served")) {
		t.Errorf("%d %q", code, body)
	}
	put(t, app, "setInterval(() => {}, 1000)", 0o644)
	w.signal(syscall.SIGTERM)
	w.exits(0)
}

// Others than loopback need a token, in a file that nobody else may read.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	put(t, token, "0123456789abcdef\n", 0o644)
	for _, c := range []struct{ args, want string }{
		{"--admin 0.0.0.0:9", "is open to others: give --admin-token-file"},
		{"--admin [::]:9", "is open to others"},
		{"--admin 9100", "want HOST:PORT"},
		{"--admin 0.0.0.0:9 --admin-token-file " + token, "others may read it"},
		{"--admin 127.0.0.1:9 --admin-token-file /nowhere", "cannot read the token"},
	} {
		_, errs, code := handoff(t, nil, append(append([]string{"run"}, strings.Fields(c.args)...), data("server.js"))...)
		if code == 0 {
			t.Errorf("%s is right", c.args)
		}
		contains(t, errs, c.want)
	}
	os.Chmod(token, 0o600)
	addr := "127.0.0.1:" + freePort(t)
	w := start(t, options{flags: []string{"-n", "1", "--admin", addr, "--admin-token-file", token}})
	for _, wrong := range []string{"", "0123456789abcdeg", "0123456789abcdef0"} {
		if code, _ := fetch(t, "http://"+addr+"/metrics", wrong); code != 401 {
			t.Errorf("with %q: %d", wrong, code)
		}
	}
	if code, _ := fetch(t, "http://"+addr+"/metrics", "0123456789abcdef"); code != 200 {
		t.Errorf("%d", code)
	}
	w.stop()
}
