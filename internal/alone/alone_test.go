package alone

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

func nobody(int) bool { return false }

// What programs write that find another one of theirs, word for word.
func TestRecognised(t *testing.T) {
	for program, text := range map[string]string{
		"Apache":      "httpd (pid 4711) already running",
		"Apache 2":    "apache2 (pid 4711) already running",
		"php-fpm":     "[26-Nov-2026 20:14:28] ERROR: An another FPM instance seems to already listen on /run/php/php8.2-fpm.sock\n[26-Nov-2026 20:14:28] ERROR: FPM initialization failed",
		"PostgreSQL":  "2026-11-26 20:14:28.123 UTC [4712] FATAL:  lock file \"postmaster.pid\" already exists\n2026-11-26 20:14:28.123 UTC [4712] HINT:  Is another postmaster (PID 4711) running in data directory \"/var/lib/postgresql/15/main\"?",
		"MySQL":       "2026-11-26T20:14:28.1Z 1 [ERROR] [MY-012574] [InnoDB] Unable to lock ./ibdata1 error: 11",
		"MongoDB":     "{\"attr\":{\"error\":\"DBPathInUse: Unable to lock the lock file: /data/db/mongod.lock (Resource temporarily unavailable). Another mongod instance is already running on the /data/db directory\"}}",
		"gunicorn":    "Error: Already running on PID 4711 (or pid file '/run/web.pid' is stale)",
		"unicorn":     "/usr/lib/ruby/vendor_ruby/unicorn/http_server.rb:203:in `pid=': Already running on PID:4711 (or pid=/run/web.pid is stale) (ArgumentError)",
		"Rails":       "A server is already running (pid: 4711, file: /app/tmp/pids/server.pid).\nExiting",
		"Celery":      "ERROR: Pidfile (celeryd.pid) already exists.\nSeems we're already running? (pid: 4711)",
		"varnishd":    "Error: Varnishd is already running (pid=4711) (pidfile=/var/lib/varnish/x/_.pid)",
		"squid":       "2026/11/26 20:14:28| FATAL: Squid is already running: Found fresh instance PID file (/run/squid.pid) with PID 4711",
		"Twisted":     "Another twistd server is running, PID 4711",
		"RocksDB":     "IO error: While lock file: /data/LOCK: Resource temporarily unavailable",
		"LevelDB":     "Error: IO error: lock /data/LOCK: Resource temporarily unavailable",
		"Kafka":       "org.apache.kafka.common.KafkaException: Failed to acquire lock on file .lock in /data. A Kafka instance in another process or thread is using this directory.",
		"Redis":       "Sorry, the cluster configuration file nodes.conf is already used by a different Redis Cluster node. Please make sure that different nodes use different cluster configuration files.",
		"a lock file": "Error: Lock file is already being held\n    at /app/node_modules/proper-lockfile/lib/lockfile.js:68:47 {\n  code: 'ELOCKED',",
		"flock":       "Traceback (most recent call last):\n  File \"/app/worker.py\", line 4, in <module>\n    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\nBlockingIOError: [Errno 11] Resource temporarily unavailable",
		"filelock":    "filelock._error.Timeout: The file lock '/tmp/x.lock' could not be acquired.",
		"Elastic":     "java.lang.IllegalStateException: failed to obtain node locks, tried [/data]; maybe these locations are not writable or multiple nodes were started on the same data path?",
	} {
		if Hint(strings.Split(text, "\n"), nobody, 1) == "" {
			t.Errorf("%s: %q is not recognised", program, text)
		}
	}
}

// Other errors get no such advice.
func TestNotRecognised(t *testing.T) {
	for _, text := range []string{
		"",
		"Error: Cannot find module 'proper-lockfile'",
		"npm WARN old lockfile The package-lock.json file was created with an old version of npm",
		"sqlite3.OperationalError: database is locked",
		"ERROR: deadlock detected",
		"Error: relation \"users\" already exists",
		"EEXIST: file already exists, mkdir '/app/data'",
		"bash: fork: retry: Resource temporarily unavailable",
		"runtime: failed to create new OS thread (have 5 already; errno=11)\npthread_create failed: Resource temporarily unavailable",
		"Error: connect ECONNREFUSED 127.0.0.1:5432",
		"Another error occurred while reading the configuration",
		"nginx: [emerg] open() \"/run/nginx.pid\" failed (13: Permission denied)",
		"Failed to write PID file: Permission denied",
		"Error: listen EADDRINUSE: address already in use :::1",
		"SyntaxError: Identifier 'lock' has already been declared",
		"TypeError: Cannot read properties of undefined (reading 'lock')",
	} {
		if hint := Hint(strings.Split(text, "\n"), nobody, 1); hint != "" {
			t.Errorf("%q: %q", text, hint)
		}
	}
}

// An address that another worker has is one that only one can have.
func TestAddressOfOurs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := []string{"OSError: [Errno 98] Address already in use: ('127.0.0.1', " + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + ")"}
	if hint := Hint(text, nobody, 1); hint != "" {
		t.Errorf("somebody else has it: %q", hint)
	}
	hint := Hint(text, func(pid int) bool { return pid == os.Getpid() }, 2)
	if !strings.Contains(hint, "--overlap none") || !strings.Contains(hint, "-n 1") {
		t.Errorf("%q", hint)
	}
}

func FuzzHint(f *testing.F) {
	f.Add("httpd (pid 4711) already running")
	f.Add("fcntl.flock(x)\nResource temporarily unavailable")
	f.Fuzz(func(t *testing.T, text string) {
		hint := Hint(strings.Split(text, "\n"), nobody, 1)
		if hint != "" && strings.Contains(hint, text) && len(text) > 30 {
			t.Errorf("%q is repeated", text)
		}
	})
}
