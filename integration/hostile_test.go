package integration

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"handoff/internal/load"
)

// A worker's process that does what it can to keep the master busy, or to hold
// it up: floods of notices, forged ones among them; binds whose address changes
// while it is read; a bind whose address lies in memory that nobody fills
// (userfaultfd), so that reading it never ends.
const hostile = `
import ctypes, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def attack():
    me = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    def flood():
        i = 0
        while True:
            i += 1
            try: n.sendto(b"READY=1\nSTATUS=%d\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=%d\nRELOADING=%d" % (i, i, i % 2), me)
            except OSError: pass
    a = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + b"\x7f\0\0\1" + bytes(8))
    def flip():
        while True:
            for family, p in (2, port), (10, port), (2, port + 1), (0, 0):
                struct.pack_into("=H", a, 0, family); struct.pack_into("!H", a, 2, p)
    def binds():
        while True:
            s = socket.socket()
            libc.bind(s.fileno(), a, 16)
            s.listen()
            s.close()
    def never():
        u = libc.syscall(323, os.O_CLOEXEC)
        if u < 0: return print("no userfaultfd", file=sys.stderr)
        page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
        api = struct.pack("=QQQ", 0xAA, 0, 0)
        reg = struct.pack("=QQQQ", page, 4096, 1, 0)
        if libc.ioctl(u, ctypes.c_ulong(0xc018aa3f), api) or libc.ioctl(u, ctypes.c_ulong(0xc020aa00), reg):
            return print("no userfaultfd", file=sys.stderr)
        s = socket.socket()
        print("waits for ever", file=sys.stderr, flush=True)
        libc.bind(s.fileno(), ctypes.c_void_p(page), 16)
    for f in (flood, flip, binds) if os.environ["HOSTILE"] == "busy" else (never,):
        threading.Thread(target=f).start()
    open("attacks", "w").write("x")
s = http.server.ThreadingHTTPServer(("127.0.0.1", port), H)
if os.environ["WORKER_ID"] == "0" and os.fork() == 0:
    s.socket.close()
    attack()
else:
    s.serve_forever()
`

// The master keeps its pace, and nothing of the other worker is touched.
func TestHostileBinder(t *testing.T) {
	for _, kind := range []string{"busy", "stuck"} {
		t.Run(kind, func(t *testing.T) {
			calm := start(t, python(t, `s = http.server.ThreadingHTTPServer(("127.0.0.1", port), H); s.serve_forever()`,
				options{flags: []string{"-n", "2"}, env: []string{"PORT=" + freePort(t)}}))
			quiet := reloadTimes(t, calm)
			calm.stop()

			w := start(t, python(t, hostile, options{flags: []string{"-n", "2", "--watchdog", "1h", "--drain-timeout", "2s"}, env: []string{"PORT=" + freePort(t), "HOSTILE=" + kind}}))
			awaitFile(t, w.dir+"/attacks", "x")
			if kind == "stuck" {
				w.awaitLine("waits for ever")
			}
			run := w.load(load.Config{Clients: 4})
			run.Await(100, testTimeout)
			other := w.all("worker.ready")[1].PID
			busy := reloadTimes(t, w)
			run.Await(100, testTimeout)
			w.nothingLost(run)
			t.Logf("a reload takes %v beside a hostile worker, %v without, under no load", busy, quiet)
			// Two CPUs are shared with the attack, and a Python takes its time to boot.
			if busy > 12*quiet {
				t.Errorf("a reload takes %v, %v without the hostile worker", busy, quiet)
			}
			for _, e := range append(w.all("worker.crashed"), w.all("worker.killed")...) {
				if e.PID == other || e.Name == "worker.crashed" {
					t.Errorf("%+v", e)
				}
			}
			w.stop()
		})
	}
}

// reloadTimes is the mean time of a few reloads.
func reloadTimes(t *testing.T, w *world) time.Duration {
	t.Helper()
	began := time.Now()
	const n = 3
	for range n {
		w.reload()
	}
	return time.Since(began) / n
}

// In a user namespace of its own, as root there.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	if err := exec.Command("unshare", "-U", "-r", "true").Run(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	w := start(t, python(t, `s = http.server.HTTPServer(("127.0.0.1", port), H); s.serve_forever()`,
		options{flags: []string{"-n", "2"}, env: []string{"PORT=" + freePort(t)}, behind: []string{"unshare", "-U", "-r"}}))
	reloadsOf(t, w, 2, times(20, 3))
	w.stop()
}

// Where the kernel refuses a filter, the log says what to do; and with sockets
// that are given nothing is lost.
func TestSeccompRefused(t *testing.T) {
	t.Parallel()
	deny := goProgram("denyseccomp")
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1", "--ready-when", "ready", "--listen", "127.0.0.1:" + port},
		app: []string{goProgram("gosdk")}, env: []string{"PORT=" + port}, behind: []string{deny}})
	refused := w.all("worker.unseated")
	if len(refused) != 1 || !strings.Contains(refused[0].Msg, "--listen") {
		t.Errorf("said %+v, want once, with what to do", refused)
	}
	reloadsOf(t, w, 1, times(20, 3))
	w.stop()
}
