package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peer is a tool with a program that is its own.
type peer struct {
	Name    string
	App     string   // of testdata, copied; what a deploy changes
	Broken  string   // what App is in a broken deploy
	Command []string // in the foreground, unless Daemon
	Env     []string
	Version []string // prints it
	Reload  []string // a command with PID in its environment; of one word that begins with SIG: a signal to the manager
	Shrink  []string // by two workers; the same
	Grow    []string
	Missing string        // why it cannot be measured here
	Rest    time.Duration // after each reload: how long it goes on by itself; 0: a second
	Note    string        // what was unfair, or had to be chosen
	Daemon  string        // file with the pid of the manager, which Command has put into the background
	End     []string
	Files   map[string]string // written before the start
	broken  map[string]string // written for a broken deploy, in the place of App
}

// WORKERS is how many workers everything has.
const workers = 4

// peers are all that is compared, on one port, in dir.
func peers(dir, bin, port string) []peer {
	n := strconv.Itoa(workers)
	mods := filepath.Join(dir, "npm", "node_modules")
	pm2 := filepath.Join(mods, ".bin", "pm2")
	cwd, _ := os.Getwd()
	throw := "throw new Error('broken deploy')\n"
	work := filepath.Join(dir, "work")
	home := filepath.Join(dir, "pm2")
	js := func(name, app string, command []string, env ...string) peer {
		return peer{Name: name, App: app, Broken: throw, Command: command,
			Env: append([]string{"WORKERS=" + n, "APP=" + filepath.Join(work, app)}, env...)}
	}
	handoff := func(name, app string, run ...string) peer {
		return peer{Name: name, App: app, Command: append([]string{bin, "run", "-n", n, "--name", "peers", "--log", "json"}, run...),
			Version: []string{bin, "version"}, Reload: []string{bin, "reload", "peers"},
			Shrink: []string{bin, "scale", "2", "peers"}, Grow: []string{bin, "scale", n, "peers"}}
	}
	script := func(p peer, version ...string) peer {
		p.Version, p.Reload = version, []string{"SIGUSR2"}
		return p
	}
	manual := func(p peer) peer {
		p.Shrink, p.Grow = []string{"SIGTTOU", "SIGTTOU"}, []string{"SIGTTIN", "SIGTTIN"}
		return p
	}
	pm := func(name, app string) peer {
		p := js(name, app, []string{pm2, "start", filepath.Join(work, app), "-i", n, "--name", "app", "--wait-ready", "--listen-timeout", "10000", "--kill-timeout", "5000"},
			"PM2_HOME="+home, "PM2_DISABLE_VERSION_CHECK=true", "PM2_SILENT=true")
		p.Version, p.Reload = []string{"node", "-p", "'PM2 ' + require('" + mods + "/pm2/package.json').version"}, []string{pm2, "reload", "app"} // pm2 --version starts a daemon
		p.Shrink, p.Grow = []string{pm2, "scale", "app", "2"}, []string{pm2, "scale", "app", n}
		p.Daemon, p.End = filepath.Join(home, "pm2.pid"), []string{pm2, "kill"}
		return p
	}
	node := []string{"node", "--version"}
	var all []peer
	add := func(p peer) { all = append(all, p) }

	h := handoff("handoff, Node, plain app", "app.js", "--ready-when", "ready", filepath.Join(work, "app.js"))
	h.Broken = throw
	add(h)
	add(script(manual(js("Node cluster, rolling, plain app", "app.js", []string{"node", filepath.Join(cwd, "bench/peers/testdata/cluster.js")})), node...))
	p := script(manual(js("Node cluster, rolling, draining app", "drain.js", []string{"node", filepath.Join(cwd, "bench/peers/testdata/cluster.js")}, "RETIRE=SIGTERM")), node...)
	p.Note = "the application drains by itself (12 lines)"
	add(p)
	p = script(js("recluster 1.0.0", "app.js", []string{"node", filepath.Join(cwd, "bench/peers/testdata/recluster.js")}, "MODULE="+filepath.Join(mods, "recluster")), node...)
	add(p)
	p = script(js("cluster-master 0.2.1", "app.js", []string{"node", filepath.Join(cwd, "bench/peers/testdata/master.js")}, "MODULE="+filepath.Join(mods, "cluster-master")), node...)
	p.Shrink, p.Grow = []string{"SIGTTOU"}, []string{"SIGTTIN"}
	p.Rest = 3 * time.Second
	p.Note = "it ignores a reload while it thinks one is under way"
	add(p)
	p = pm("PM2, plain app", "app.js")
	add(p)
	p = pm("PM2, draining app", "drain.js")
	p.Note = "the application drains by itself (12 lines)"
	add(p)

	wsgi := filepath.Join(work, "app.py")
	h = handoff("handoff, gunicorn", "app.py", "--drain-timeout", "10s", "--", "gunicorn", "--preload", "-w", "1", "--threads", "4", "-b", "127.0.0.1:"+port, "--chdir", work, "app:app")
	h.Broken, h.Note = "raise RuntimeError('broken deploy')\n", "each of the four workers is a gunicorn with one process, which loads before it listens (--preload)"
	add(h)
	p = peer{Name: "gunicorn, HUP", App: "app.py", Broken: "raise RuntimeError('broken deploy')\n",
		Command: []string{"gunicorn", "-w", n, "--threads", "4", "-b", "127.0.0.1:" + port, "--chdir", work, "app:app"}, Version: []string{"gunicorn", "--version"},
		Reload: []string{"SIGHUP"}, Shrink: []string{"SIGTTOU", "SIGTTOU"}, Grow: []string{"SIGTTIN", "SIGTTIN"}}
	add(p)
	p = peer{Name: "uWSGI, chain reload", App: "app.py", Broken: "raise RuntimeError('broken deploy')\n",
		Command: []string{"uwsgi", "--plugin", "python3", "--master", "--processes", n, "--lazy-apps", "--need-app", "--http-socket", "127.0.0.1:" + port, "--chdir", work, "--wsgi-file", wsgi,
			"--master-fifo", filepath.Join(work, "fifo"), "--disable-logging", "--die-on-term"},
		Version: []string{"uwsgi", "--version"}, Reload: []string{"sh", "-c", "echo c > " + filepath.Join(work, "fifo")},
		Rest: 4 * time.Second, // one worker a second or two; a reload meanwhile is ignored
		Note: "no keep-alive on its own HTTP socket: every client makes a connection for each request"}
	add(p)

	h = handoff("handoff, Puma", "config.ru", "--drain-timeout", "10s", "--", "puma", "-t", "4:4", "-b", "tcp://127.0.0.1:"+port, filepath.Join(work, "config.ru"))
	h.Broken, h.Note = "raise 'broken deploy'\n", "each of the four workers is a Puma with one process"
	add(h)
	p = peer{Name: "Puma, phased restart", App: "config.ru", Broken: "raise 'broken deploy'\n",
		Command: []string{"puma", "-w", n, "-t", "4:4", "-b", "tcp://127.0.0.1:" + port, filepath.Join(work, "config.ru")}, Version: []string{"puma", "--version"},
		Reload: []string{"SIGUSR1"}, Shrink: []string{"SIGTTOU", "SIGTTOU"}, Grow: []string{"SIGTTIN", "SIGTTIN"}}
	add(p)

	conf := func(workers string) string {
		return "daemon off;\nworker_processes " + workers + ";\npid " + filepath.Join(work, "nginx.pid") + ";\nerror_log " + filepath.Join(work, "nginx.log") + ";\nevents { worker_connections 1024; }\nhttp { access_log off; keepalive_requests 1000000;\n" +
			tempPaths(work) + "  server { listen 127.0.0.1:" + port + "; location / { return 200 \"$pid\\n\"; } } }\n"
	}
	file := filepath.Join(work, "nginx.conf")
	sed := func(n string) []string {
		return []string{"sh", "-c", fmt.Sprintf("sed -i 's/^worker_processes.*/worker_processes %s;/' %s && kill -HUP $PID", n, file)}
	}
	p = peer{Name: "nginx, HUP", Command: []string{"nginx", "-c", file, "-p", work}, Version: []string{"nginx", "-v"}, Reload: []string{"SIGHUP"},
		Shrink: sed("2"), Grow: sed(n), Files: map[string]string{"nginx.conf": conf(n)}, broken: map[string]string{"nginx.conf": "nonsense;\n"},
		Note: "it answers by itself: no application boots in a reload"}
	add(p)
	cfg := "global\n  stats socket " + filepath.Join(work, "haproxy.sock") + " mode 600 level admin expose-fd listeners\n  nbthread " + n + "\n  hard-stop-after 5s\ndefaults\n  mode http\n  timeout client 60s\n  timeout http-keep-alive 60s\n" +
		"frontend f\n  bind 127.0.0.1:" + port + "\n  http-request return status 200 content-type text/plain lf-string \"%pid\\n\"\n"
	p = peer{Name: "HAProxy, USR2", Command: []string{"haproxy", "-W", "-f", filepath.Join(work, "haproxy.cfg")}, Version: []string{"haproxy", "-v"}, Reload: []string{"SIGUSR2"},
		Files: map[string]string{"haproxy.cfg": cfg}, broken: map[string]string{"haproxy.cfg": "nonsense\n"},
		Note: "it answers by itself: no application boots in a reload; one process with four threads"}
	add(p)
	for i := range all {
		if _, err := exec.LookPath(all[i].Command[0]); err != nil {
			all[i].Missing = err.Error()
		}
	}
	return all
}

// tempPaths keeps nginx out of /var.
func tempPaths(work string) string {
	var b strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "  %s_temp_path %s;\n", kind, filepath.Join(work, "nginx-"+kind))
	}
	return b.String()
}

// install gets what is missing, from npm and from Debian.
func install(dir string) error {
	var need []string
	for name, pkg := range map[string]string{"gunicorn": "gunicorn", "uwsgi": "uwsgi-core uwsgi-plugin-python3", "puma": "puma", "nginx": "nginx-light", "haproxy": "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			need = append(need, strings.Fields(pkg)...)
		}
	}
	commands := [][]string{{"npm", "install", "--prefix", filepath.Join(dir, "npm"), "--no-audit", "--no-fund", "--loglevel=error", "pm2@7.0.4", "recluster@1.0.0", "cluster-master@0.2.1"}}
	if len(need) > 0 {
		commands = append(commands, []string{"apt-get", "update", "-q"}, append([]string{"apt-get", "install", "-yq", "--no-install-recommends"}, need...))
	}
	for _, c := range commands {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "peers: %s: %v\n%s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}
