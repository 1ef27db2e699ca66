package hostile

import "testing"

// others is an attack on each neighbour: what is said to its NOTIFY_SOCKET.
const others = `
def neighbours():
    for pid in siblings:
        to = environ(pid).get("NOTIFY_SOCKET")
        if to: yield pid, to
harm = "READY=1\nSTOPPING=1\nRELOADING=1\nWATCHDOG=trigger\nSTATUS=mine\nMAINPID=%d\nX_REQUESTS=1000000\nEXTEND_TIMEOUT_USEC=3600000000" % worker
`

func noticeRows() []row {
	root := []setup{{true, true}, {false, true}, {true, false}, {false, false}}
	return []row{
		talk{name: "neighbours-notices", short: true, setups: root, tries: "NOTIFY_SOCKET of a neighbour (from /proc/PID/environ): READY, STOPPING, WATCHDOG=trigger, MAINPID, EXTEND_TIMEOUT, with its own, forged (the neighbour's pid, root) and a user namespace's credentials, from a group that it joins, 2 000 times",
			attack: others + `
answers = set()
def attack(creds):
    for pid, to in neighbours():
        for c in creds(pid): answers.add(str((bool(c), notice(harm, to, (), c))))
for i in range(500): attack(lambda pid: [None, (pid, os.getuid(), os.getgid()), (pid, 0, 0), (1, 0, 0)])
child = os.fork()
if child == 0:
    for pid, _ in neighbours(): may(os.setpgid, 0, os.getpgid(pid))
    attack(lambda pid: [None])
    if libc.unshare(0x10000000 | 0x20000000) == 0 and os.fork() == 0: # with a pid namespace, as its root
        attack(lambda pid: [None, (1, 0, 0), (pid, 0, 0)])
    os._exit(0)
os.waitpid(child, 0)
say("done", sorted(answers))
`, during: func(t *testing.T, s *service) {
				for _, event := range []string{"worker.hung", "worker.leaving", "worker.crashed"} {
					if all := s.said(event); len(all) > 0 {
						t.Errorf("a neighbour is believed: %v", all[0])
					}
				}
			}}.row(),
		talk{name: "orphan-in-group", setups: root[2:], tries: "NOTIFY_SOCKET of a neighbour, from an orphan that has joined the neighbour's process group: WATCHDOG=trigger",
			attack: others + `
if os.fork() == 0:
    if os.fork(): os._exit(0)
    while os.getppid() != keeper: time.sleep(.001)
    for pid, to in neighbours():
        os.setpgid(0, os.getpgid(pid))
        say("done", notice("WATCHDOG=trigger", to))
    time.sleep(100)
os.wait()
time.sleep(100)
`, limit: "one user's processes are one to the kernel: who may do this may kill -9 the neighbour, under any supervisor", logs: []string{"worker.hung"},
			during: func(t *testing.T, s *service) { s.await("worker.hung") }}.row(),
		// A Node program waits for the processes that it has started, and would take the hour
		// that it asks for here (docs/contracts.md): it harms nobody, and the row would wait.
		talk{name: "notice-flood", setups: []setup{{false, true}, {false, false}}, twice: true, flags: []string{"--watchdog", "1h"}, tries: "its own NOTIFY_SOCKET: a megabyte of STATUS, EXTEND_TIMEOUT of an hour, FDSTORE with 200 descriptors of all kinds, X_DRAINING, WATCHDOG, RELOADING, without a pause, by four processes",
			attack: `
notice("STATUS=" + "x" * (1 << 20)); notice("STATUS=" + "x" * 100000); notice("READY=1\nSTATUS=\x1b]0;x\x07\x00\n\n=\n" * 100)
fds = kinds()
for i in range(4):
    if os.fork() == 0:
        n = 0
        while True:
            n += 1
            notice("READY=1\nRELOADING=%d\nSTATUS=%d\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=3600000000\nX_REQUESTS=%d" % (n % 2, n, n))
            notice("FDSTORE=1\nFDNAME=x\nSTATUS=%d" % n, None, (fds * 20)[:200])
            notice("X_DRAINING=1", None, [fds[n % len(fds)]])
say("done")
while True: time.sleep(1)
`, logs: []string{"worker.status"}}.row(),
		talk{name: "notice-lingering", short: true, tries: "NOTIFY_SOCKET, its own and its neighbours': 2 000 TCP sockets whose close takes an hour",
			attack: others + `
places = [None] + [to for _, to in neighbours()]
for i in range(500):
    slow = list(lingering(4))
    for to in places: notice("FDSTORE=1", to, slow)
    for c in slow: c.close()
    if i == 50: say("done")
`, logs: []string{"worker.status"}}.row(),
		talk{name: "after-death", tries: "READY, WATCHDOG=trigger and lines of Node's channel from a child of a worker that is dead, in a session of its own, as an orphan",
			attack: others + `
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(worker, signal.SIGKILL)
    while True:
        notice(harm); may(cluster, "online"); may(cluster, "listening", address=host, port=port, addressType=4, index=0, seq=1)
        for _, to in neighbours(): notice(harm, to)
time.sleep(100)
`, until: "worker.crashed", logs: []string{"worker.descendants", "worker.crashed"}}.row(),
	}
}
