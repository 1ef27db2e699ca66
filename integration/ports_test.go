package integration

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"handoff/internal/load"
)

// Each slot has a port of its own, and always one worker serves on each.
func TestPorts(t *testing.T) {
	t.Parallel()
	for name, app := range map[string][]string{"node": nil, "go": {goProgram("gosdk")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ports := []string{freePort(t), freePort(t), freePort(t)}
			w := start(t, options{flags: []string{"--ports", strings.Join(ports, ","), "--keepalive-linger", "200ms"}, app: app})
			var runs []*load.Run
			for _, port := range ports {
				runs = append(runs, startLoad(load.Config{Addr: "127.0.0.1:" + port, Clients: 4}))
			}
			for range times(20, 4) {
				w.reload()
				w.retired(3)
				for _, run := range runs {
					run.Await(20, testTimeout)
				}
			}
			w.killMaster()
			w.reload()
			w.retired(3)
			for _, pid := range w.workers() {
				slot, _ := strconv.Atoi(environ(pid, "WORKER_ID"))
				if got := environ(pid, "PORT"); got != ports[slot] || environ(pid, "port") != got {
					t.Errorf("slot %d has PORT %s, want %s", slot, got, ports[slot])
				}
			}
			for _, run := range runs {
				w.nothingLost(run)
			}
			w.stop()
		})
	}
}

func TestPortsErrors(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--ports 3000,x":         "want numbers from 1 to 65535",
		"--ports 3000,3000":      "3000 is given twice",
		"--ports 3000,3001 -n 3": "there is one worker per port",
	} {
		_, errs, code := handoff(t, nil, append(append([]string{"run"}, strings.Fields(args)...), data("server.js"))...)
		if code != 2 {
			t.Errorf("%s: exit code %d", args, code)
		}
		contains(t, errs, want)
	}
}

// The example for nginx in front: a client stays with its worker over reloads, and
// nothing is lost behind nginx, which retries nothing.
func TestNginxInFront(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("no nginx")
	}
	b, err := os.ReadFile("../examples/nginx/sticky.conf")
	if err != nil {
		t.Fatal(err)
	}
	front := freePort(t)
	conf := strings.ReplaceAll(string(b), "127.0.0.1:8080", "127.0.0.1:"+front)
	var ports []string
	for _, example := range []string{"3000", "3001", "3002"} {
		port := freePort(t)
		ports = append(ports, port)
		if !strings.Contains(conf, "server 127.0.0.1:"+example+";") {
			t.Fatalf("the example has no port %s", example)
		}
		conf = strings.ReplaceAll(conf, "127.0.0.1:"+example, "127.0.0.1:"+port)
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "nginx.conf"), conf, 0o644)
	w := start(t, options{flags: []string{"--ports", strings.Join(ports, ","), "--keepalive-linger", "200ms"}})
	nginx := exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	var errs strings.Builder
	nginx.Stderr = &errs
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { nginx.Process.Signal(syscall.SIGTERM); nginx.Wait() }()
	for deadline := time.Now().Add(testTimeout); ; {
		if c, err := net.Dial("tcp", "127.0.0.1:"+front); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %s", &errs)
		}
	}
	var mu sync.Mutex // guards slots
	slots := map[string]bool{}
	run := startLoad(load.Config{Addr: "127.0.0.1:" + front, Clients: 4, Sources: []net.IP{net.ParseIP("127.0.0.7")}, Observe: func(_ int, h http.Header) {
		mu.Lock()
		defer mu.Unlock()
		slots[h.Get("X-Slot")] = true
	}})
	for range times(20, 4) {
		run.Await(50, testTimeout)
		w.reload()
		w.retired(3)
	}
	w.nothingLost(run)
	if len(slots) != 1 {
		t.Errorf("one client was with the slots %v", slots)
	}
	w.stop()
}
