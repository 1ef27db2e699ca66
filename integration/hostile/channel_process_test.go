package hostile

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func processRows() []row {
	dropped := []setup{{false, true}, {true, true}}
	one := []setup{{false, false}, {true, false}}
	return []row{
		talk{name: "root-is-closed", short: true, setups: dropped, tries: "with --user: SIGKILL, SIGSTOP, SIGTERM, ptrace, pidfd_getfd, process_vm_readv, /proc/PID/fd, mem, environ and oom_score_adj of master and keeper; the control socket; the keeper's socket; handoff's own commands; forged HANDOFF_* variables for __master",
			attack: handoffs + `
done = []
def must(what, ok):
    if not ok: done.append(what)
for pid in master, keeper:
    for s in signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGUSR2, 36: must("kill", may(os.kill, pid, s) == "EPERM")
    must("group", may(os.killpg, pid, signal.SIGKILL) in ("EPERM", "ESRCH"))
    p = libc.syscall(434, pid, 0)
    must("pidfd_send_signal", libc.syscall(424, p, 9, None, 0) < 0)
    for n in range(64): must("pidfd_getfd", libc.syscall(438, p, n, 0) < 0)
    for request in 16, 0x4206: must("ptrace", libc.ptrace(request, pid, None, None) < 0)
    b = ctypes.create_string_buffer(64); v = struct.pack("QQ", ctypes.addressof(b), 64)
    must("process_vm_readv", libc.process_vm_readv(pid, v, 1, struct.pack("QQ", 0x400000, 64), 1, 0) < 0)
    for name in "fd", "map_files": must(name, may(os.listdir, "/proc/%d/%s" % (pid, name)) == "EACCES")
    for name in "mem", "environ", "maps", "auxv", "io", "stack": must(name, may(open, "/proc/%d/%s" % (pid, name)) in ("EACCES", "EPERM", "ENOENT"))
    must("oom_score_adj", may(open, "/proc/%d/oom_score_adj" % pid, "w") == "EACCES")
must("prlimit", libc.prlimit(master, 7, struct.pack("QQ", 0, 0), None) < 0)
theirs = [environ(pid).get("NOTIFY_SOCKET") for pid in siblings] # whose user it has
for path in sockets():
    if path not in theirs: must(path, reach(path) in ("EACCES", "ECONNREFUSED", "ENOENT", "closed"))
must("no sockets", sockets())
for word in "reload", "stop", "status", "scale 1": must(word, command(word) != 0)
must("__master", master_of_its_own() != 0)
say("done", done)
`, during: nothing}.row(),
		talk{name: "control-socket", setups: one, tries: "as handoff's own user: status, reload, restart and scale by the control socket, by handoff's commands and by hand",
			attack: handoffs + `
answers = [command(w) for w in ("status", "scale +1", "scale -1", "restart 1", "reload")]
say("done", answers)
`, logs: []string{"control.order"}, during: func(t *testing.T, s *service) { s.await("cluster.reloaded") }}.row(),
		talk{name: "forged-master", setups: one, tries: "as handoff's own user: X_CANDIDATE, READY, X_GIVE, FDSTOREREMOVE, STOPPING and 5 000 descriptors to the keeper's socket; __master with the HANDOFF_* variables of the real one",
			attack: handoffs + `
answers = set()
ours, theirs = socket.socketpair()
for path in sockets():
    for text in ["X_CANDIDATE=1", "READY=1\nX_UPGRADE=1", "STOPPING=1", "X_LEAVING=1", "X_BEGIN=1\nX_END=1", "FDSTOREREMOVE=1\nFDNAME=state", "X_TOOK=SIGTERM", "X_UP=1\nMAINPID=1"] * 50:
        answers.add(notice(text, path))
    for i in range(20): answers.add(notice("FDSTORE=1\nFDNAME=state", path, [theirs] * 250))
    answers.add(notice("X_GIVE=1", path, [theirs]))
theirs.close()
ours.settimeout(1)
answers.add(str(may(ours.recv, 100)))
answers.add(str(master_of_its_own()))
say("done", sorted(answers))
`}.row(),
		talk{name: "kill-master", setups: one, tries: "as handoff's own user: kill -9 of the master, ten times",
			attack: `
say("done")
for i in range(10):
    may(os.kill, master, signal.SIGKILL)
    while parent(master) == keeper: time.sleep(.001)
    master = None
    while not master:
        time.sleep(.02)
        master = next((p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(p) == keeper and b"__master" in open("/proc/%d/cmdline" % p, "rb").read()), None)
    time.sleep(.2)
`, logs: []string{"master.adopted"}, during: func(t *testing.T, s *service) { s.await("master.adopted", 3) }}.row(),
		talk{name: "kill-keeper", setups: one, tries: "as handoff's own user: kill -9 of the keeper",
			attack: `
os.kill(keeper, signal.SIGKILL)
say("done")
time.sleep(100)
`, logs: []string{"keeper.died"}, during: func(t *testing.T, s *service) { s.await("master.adopted") }}.row(),
		talk{name: "stop-master", setups: one, tries: "as handoff's own user: SIGSTOP of the master for 3 s, then of the keeper, then ptrace (seize and interrupt) of the master for 3 s",
			attack: `
may(os.kill, master, signal.SIGSTOP); time.sleep(3); may(os.kill, master, signal.SIGCONT)
may(os.kill, keeper, signal.SIGSTOP); time.sleep(3); may(os.kill, keeper, signal.SIGCONT)
held = libc.ptrace(0x4206, master, None, None)
if held == 0:
    libc.ptrace(0x4207, master, None, None); time.sleep(3)
say("done", held) # its end lets go
`}.row(),
		talk{name: "stopped-for-good", setups: one, tries: "as handoff's own user: SIGSTOP of the master again and again; then the service is stopped",
			attack: `
say("done")
while True: may(os.kill, master, signal.SIGSTOP); time.sleep(.001)
`, during: func(t *testing.T, s *service) {
				// What is left of the row needs a master: the attacker is ended by hand.
				for _, pid := range s.attackers() {
					unix.Kill(pid, unix.SIGKILL)
				}
				if _, master := s.running(); master > 0 {
					unix.Kill(master, unix.SIGCONT)
				}
			}}.row(),
		talk{name: "kill-neighbours", setups: one, tries: "as its neighbours' user: kill -9 of each neighbour, once",
			attack: `
for pid in siblings: may(os.kill, pid, signal.SIGKILL)
say("done")
time.sleep(100)
`, limit: "one user's processes may end one another, with or without handoff: requests inside the killed worker are lost, the others are not, and it is replaced", logs: []string{"worker.crashed"},
			during: func(t *testing.T, s *service) { s.await("worker.crashed") }}.row(),
	}
}

// nothing fails if the attacker says that something went.
func nothing(t *testing.T, s *service) {
	if got := s.marked("done"); got != "[]" {
		t.Errorf("these were not refused: %s", got)
	}
}

// attackers are the processes of the attack.
func (s *service) attackers() (pids []int) {
	for _, w := range s.workers() {
		for _, pid := range children(w) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), "attack.py") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// handoffs is what an attack on handoff's own sockets and commands needs.
const handoffs = `
import subprocess
binary, runtime, service = os.environ["BINARY_OF_TEST"], os.environ["RUNTIME_OF_TEST"], "attacked"
def sockets():
    found = [runtime + "/" + service + ".sock"]
    for line in open("/proc/net/unix"):
        path = line.split()[-1]
        if path.startswith(runtime) and path not in (os.environ.get("NOTIFY_SOCKET"), *found): found.append(path)
    return found
def reach(path):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_UNIX, kind)
        s.settimeout(2)
        try:
            s.connect(path)
            s.send(b"POST /v1/stop HTTP/1.1\r\nHost: handoff\r\nContent-Length: 0\r\n\r\n")
            return "reached" if kind == socket.SOCK_DGRAM or s.recv(1) else "closed"
        except OSError as e:
            if e.errno != errno.EPROTOTYPE: return errno.errorcode.get(e.errno, str(e))
def command(words):
    first, *rest = words.split()
    return subprocess.run([binary, first, service, *rest], env=dict(os.environ, HANDOFF_RUNTIME_DIR=runtime), stdout=subprocess.DEVNULL, timeout=20).returncode
def master_of_its_own():
    env = dict(os.environ, **environ(master))
    try: env["NOTIFY_SOCKET"] = next(p for p in sockets() if "/notify/" in p)
    except StopIteration: pass
    env.update(HANDOFF_KEEPER=str(keeper))
    try: return subprocess.run([binary, "__master", "run", "-n", "2", "--", "x"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=5).returncode
    except subprocess.TimeoutExpired: return "runs"
`
