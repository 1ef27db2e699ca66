package programs

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// protocol is what nginx speaks to the program; "": it is not behind nginx.
func (r row) protocol() string {
	if r.behind == "" && r.kind == path && r.asks == nil {
		return "http"
	}
	return r.behind
}

// front starts a real nginx before a program: at one path it makes a connection for each
// request, at another it keeps them. It tries nothing twice.
func (r row) front(t *testing.T, p place) {
	pass := map[string]string{
		"http":    "proxy_pass http://BACK; proxy_http_version 1.1; proxy_set_header Connection CONN; proxy_set_header Host x; proxy_next_upstream off;",
		"fastcgi": "include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME %DIR%/index.php; fastcgi_pass BACK; fastcgi_keep_conn KEEP; fastcgi_next_upstream off;",
		"uwsgi":   "include /etc/nginx/uwsgi_params; uwsgi_pass BACK; uwsgi_next_upstream off;",
	}[r.protocol()]
	if pass == "" {
		return
	}
	back := "127.0.0.1:%PORT%"
	if r.kind == path {
		back = "unix:%SOCK%"
	}
	text := "daemon off; worker_processes 1; pid front.pid; error_log %DIR%/front.log; user root; events {}\n" +
		"http { access_log off; keepalive_requests 1000000; upstream kept { server " + back + " max_fails=0; keepalive 32; } upstream fresh { server " + back + " max_fails=0; }\n" +
		"server { listen unix:%DIR%/fresh.sock; location / { " + strings.NewReplacer("BACK", "fresh", "CONN", "close", "KEEP", "off").Replace(pass) + " } }\n" +
		"server { listen unix:%DIR%/kept.sock; location / { " + strings.NewReplacer("BACK", "kept", "CONN", `""`, "KEEP", "on").Replace(pass) + " } } }\n"
	put(t, p.dir+"/front.conf", p.fill(text))
	cmd := exec.Command("nginx", "-p", p.dir, "-c", "front.conf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitListener(t, "unix", p.front(false))
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if log, _ := os.ReadFile(p.dir + "/front.log"); t.Failed() {
			t.Logf("nginx says\n%s", log[max(0, len(log)-4000):])
		}
	})
}

func (p place) front(kept bool) string {
	if kept {
		return p.dir + "/kept.sock"
	}
	return p.dir + "/fresh.sock"
}

// frontLosses counts what nginx has lost on connections that it had, by its log.
func (p place) frontLosses(t *testing.T) (n int64) {
	log, err := os.ReadFile(p.dir + "/front.log")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.SplitSeq(string(log), "\n") {
		if strings.Contains(l, "[error]") && !strings.Contains(l, "while connecting to upstream") {
			n++
		}
	}
	return n
}
