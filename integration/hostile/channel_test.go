package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/logtest"
)

// Attacks by what handoff and a worker say to each other: Node's channel, NOTIFY_SOCKET,
// the control socket, signals, the files of /proc.

func channelRows() []row { return slices.Concat(lineRows(), noticeRows(), processRows()) }

// talk is a row of one attack by what a worker may say, or do to processes.
type talk struct {
	name, tries string
	attack      string // see attacker and speaker
	short       bool
	setups      []setup // of none: Node's, since it has a channel
	flags       []string
	logs        []string // events that an operator sees, the best first
	limit       string   // why it cannot be prevented
	until       string   // an event that the attack leads to; "": it says itself when it is done
	// during is called when the attack is done, under load.
	during func(*testing.T, *service)
	twice  bool // the service is told to stop twice: at once
}

func (d talk) row() row {
	return row{group: "channel", name: d.name, tries: d.tries, short: d.short, run: func(t *testing.T, r *report) {
		all := d.setups
		if all == nil {
			all = []setup{{true, true}, {true, false}}
		}
		setups(t, all, func(t *testing.T, u setup) { d.run(t, r, u) })
	}}
}

func (d talk) run(t *testing.T, r *report, u setup) {
	o := options{setup: u, attack: speaker + d.attack, flags: append([]string{"--balance", "sticky", "--name", "attacked"}, d.flags...)}
	own := folder(t)
	os.Chmod(own, 0o755)
	if !u.drop && os.Geteuid() == 0 {
		os.Chown(own, nobody, nobody)
	}
	own = filepath.Join(own, "run")
	o.env = []string{"HANDOFF_RUNTIME_DIR=" + own, "RUNTIME_OF_TEST=" + own, "BINARY_OF_TEST=" + binary}
	if u.node {
		path := filepath.Join(folder(t), "server.js")
		text := strings.Replace(nodeServer, "server._handle.fd]", "server._handle.fd, 3]", 1) // the channel, too
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil || text == nodeServer {
			t.Fatal("no channel for the attacker", err)
		}
		o.program = []string{path}
	}
	s := start(t, o)
	c := s.clients()
	c.more(t, 60)
	c.Begin("attack")
	s.mark("go")
	if d.until != "" {
		s.await(d.until)
	} else {
		t.Logf("the attacker says %q", s.marked("done"))
	}
	if d.during != nil {
		d.during(t, s)
	}
	c.more(t, 200)
	for range 2 {
		s.renew() // the attacker is replaced
		c.Begin("after")
		c.more(t, 60)
	}
	c.count(t, r, true)
	r.says(s.says(d.logs...))
	if d.limit != "" {
		r.documented(d.limit)
	}
	if d.twice {
		keeper, _ := s.running()
		unix.Kill(keeper, unix.SIGTERM)
		s.await("cluster.shutdown")
	}
	s.over()
}

// running are keeper and master now: they may not be those that began.
func (s *service) running() (keeper, master int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); !strings.Contains("\x00"+string(env), "\x00HOME="+s.dir+"\x00") {
			continue
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(string(b), "\x00")
		state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, rest, ok := strings.Cut(string(state), ") "); ok && len(args) > 1 && args[1] == "__master" && rest[0] != 'Z' {
			parent, _ := strconv.Atoi(strings.Fields(rest)[1])
			return parent, pid
		}
	}
	return 0, 0
}

// renew is reload, by the keeper that there is now.
func (s *service) renew() {
	s.t.Helper()
	before := len(s.said("cluster.reloaded"))
	keeper := 0
	if !s.Until(patience, func() bool { keeper, _ = s.running(); return keeper > 1 }) {
		s.t.Fatal("no master runs")
	}
	unix.Kill(keeper, unix.SIGUSR2)
	s.await("cluster.reloaded", before+1)
	if !s.Until(patience, func() bool {
		ended := len(logtest.Named(s.Lines, "worker.shutdown")) + len(logtest.Named(s.Lines, "worker.crashed"))
		return len(logtest.Named(s.Lines, "worker.started")) <= ended+2
	}) {
		s.t.Fatal("the old generation does not end")
	}
}

// over stops the service, which must end by itself.
func (s *service) over() {
	s.t.Helper()
	if keeper, _ := s.running(); keeper > 1 {
		unix.Kill(keeper, unix.SIGTERM)
	}
	if !s.Until(patience, func() bool { return s.Ended }) {
		s.t.Fatal("handoff does not end")
	}
	s.cmd.Wait()
}

// speaker is what an attack by words needs: the channel of its worker (of Node) as
// descriptor 4, and who is who.
const speaker = `
import array, json, select
def parent(pid):
    try: return int(open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[1])
    except OSError: return -1
worker = os.getppid()
master = parent(worker)
keeper = parent(master)
siblings = sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and parent(int(p)) == master and int(p) != worker)
def environ(pid):
    try: return dict(kv.split("=", 1) for kv in open("/proc/%d/environ" % pid).read().split("\0") if "=" in kv)
    except OSError: return {}
try: channel = socket.socket(fileno=os.dup(4))
except OSError: channel = None
def write(data, fds=()):
    if not isinstance(data, bytes): data = (json.dumps(data) + "\n").encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f if isinstance(f, int) else f.fileno() for f in fds]))] if fds else []
    while data:
        select.select([], [channel], [], 1)
        try: n = channel.sendmsg([data], rights)
        except BlockingIOError: continue
        data, rights = data[n:], []
def cluster(act=None, **more):
    write(dict({"cmd": "NODE_CLUSTER"}, **({"act": act} if act else {}), **more))
# Sockets whose close takes an hour, if it is let: they have what nobody reads.
def lingering(n):
    l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(n)
    for i in range(n):
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        c.connect(l.getsockname()); c.setblocking(False)
        try:
            while True: c.send(bytes(1 << 16))
        except BlockingIOError: pass
        c.setblocking(True)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        yield c
    globals().setdefault("unread", []).append(l)
# One of each kind of descriptor.
def kinds():
    pipe, pair, own = os.pipe(), socket.socketpair(), socket.socketpair()
    own[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [own[1].fileno(), own[0].fileno()]))]) # holds itself
    fifo = os.path.join("/tmp", "fifo-%d" % os.getpid())
    try: os.mkfifo(fifo)
    except OSError: pass
    e = select.epoll(); e.register(pair[0], select.EPOLLIN)
    ring = libc.syscall(425, 4, ctypes.create_string_buffer(120)) # io_uring_setup
    all = [*pipe, pair[0].detach(), pair[1].detach(), own[0].detach(), own[1].detach(), os.open(fifo, os.O_RDWR | os.O_NONBLOCK),
        os.dup(e.fileno()), libc.memfd_create(b"x", 0), os.open("/dev/null", 0), os.open("/proc/self/mem", 0), os.open("/", os.O_PATH), libc.syscall(434, os.getpid(), 0), 3, 4]
    os.unlink(fifo)
    if ring >= 0: # the kernel does not pass it on
        may(write, b'"ring"\n', [ring])
        os.close(ring)
    return [f for f in all if f >= 0]
def forget(fds):
    for f in fds:
        if f > 4: os.close(f)
def notice(text, to=None, fds=(), creds=None):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    to = to or os.environ["NOTIFY_SOCKET"]
    more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [f if isinstance(f, int) else f.fileno() for f in fds]))] if fds else []
    if creds: more.append((socket.SOL_SOCKET, 2, struct.pack("=iII", *creds))) # SCM_CREDENTIALS
    try:
        s.setblocking(False)
        s.sendmsg([text.encode() if isinstance(text, str) else text], more, 0, to.replace("@", "\0", 1))
        return "sent"
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
    finally: s.close()
`

func lineRows() []row {
	return []row{
		talk{name: "lines", tries: "Node's channel: lines of 3 MiB, one of 64 MiB, halves of lines, 10 000 lines of nonsense and JSON of 5 000 levels, by a second process beside Node",
			attack: `
write(b"x" * (3 << 20) + b"\n" + b'{"cmd":"NODE_CLUSTER","act":"')
write(b"[" * 5000 + b"\n" + b'{"a":' * 20000 + b"\n" + bytes(range(256)) * 100 + b"\n")
write(b'{"cmd":"NODE_CLUSTER","act":"queryServer","address":' + json.dumps("x" * (1 << 19)).encode() + b',"port":1,"addressType":-1}\n')
write(b"{nonsense\n" * 10000)
for i in range(1024): write(b"x" * (1 << 16)) # endless
write(b"\n")
say("done")
while True: write(b'{"cmd":"NODE_CLUSTER","act":"queryServer","port":"x"}\n'); write(b'{"cmd"'); time.sleep(.001)
`, logs: []string{"worker.garbled"}}.row(),
		talk{name: "forged", short: true, tries: "Node's channel: forged ACKs and NACKs, answers to connections that it was not given, by number and twice, closes of all keys, queries and listens of others' addresses, exitedAfterDisconnect 5 000 times",
			attack: `
for i in range(500):
    write({"cmd": "NODE_HANDLE_ACK"}); write({"cmd": "NODE_HANDLE_NACK"})
    cluster(ack=i, accepted=True); cluster(ack=i, accepted=True); cluster(ack=i, accepted=False); cluster(ack=-i, accepted=True)
    for key in range(3): cluster("close", key=str(key), seq=i)
    cluster("listening", address=host, port=port, addressType=4, index=i, seq=i)
    cluster("listening", address=None, port=1, addressType=4, seq=i)
for p in (1, 80, 443, 70000, -5, port, 0): cluster("queryServer", address=host, port=p, addressType=4, index=0, data=None, fd=-1, seq=p)
for p in ("/root/x", "/etc/passwd", "/proc/self/mem", "../../../etc/x", "\0abstract", "x" * 4000): cluster("queryServer", address=p, port=-1, addressType=-1, seq=1)
for n in range(64): cluster("queryServer", fd=n, seq=n)
cluster("online"); cluster("online")
for i in range(5000): cluster("exitedAfterDisconnect", seq=i); write({"cmd": "disconnect"})
say("done")
while True: write({"cmd": "NODE_HANDLE", "type": "net.Native", "msg": {"cmd": "NODE_HANDLE_ACK"}}) # whose receipts end Node
`, until: "worker.leaving", logs: []string{"worker.leaving"}}.row(),
		talk{name: "deaf", tries: "Node's channel: 200 000 queries and messages with descriptors, of which it reads and acknowledges no answer",
			attack: `
for i in range(200000):
    cluster("queryServer", address=host, port=0, addressType=4, index=i, data="x" * 1000, seq=i)
    write({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": {}}, [3])
`, until: "worker.crashed", logs: []string{"worker.killed", "worker.crashed"}}.row(),
		talk{name: "ports", tries: "Node's channel: listens and closes on ever new ports, as fast as it is answered",
			attack: `
say("done")
for i in range(100000):
    cluster("queryServer", address=host, port=0, addressType=4, index=i, data=None, seq=i)
    write({"cmd": "NODE_HANDLE_ACK"})
    for key in (i, i + 1, i + 2): cluster("close", key=str(key), seq=i)
    if i % 100 == 0: time.sleep(.01)
`, logs: []string{"worker.crashed", "worker.killed", "address.refused"}}.row(),
		talk{name: "descriptors", short: true, tries: "Node's channel: 20 000 descriptors of all kinds: unix sockets that hold themselves, FIFOs, io_uring, epoll, memfd, /proc/self/mem, pidfds, the channel itself, and TCP sockets whose close takes an hour",
			attack: `
for i in range(40):
    fds = kinds()
    for k in range(20): write(b'"x"\n', fds)
    write(b'"x"\n', (fds * 20)[:253])
    forget(fds)
for i in range(50):
    slow = list(lingering(4))
    write(b'"x"\n', slow)
    for c in slow: c.close()
say("done")
while True: write({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": {"cmd": "NODE_CLUSTER", "act": "queryServer"}}, [3, 4]) # whose receipts end Node
`}.row(),
		talk{name: "lingering-end", tries: "Node's channel: TCP sockets whose close takes an hour, sent while its worker is killed, five workers of the slot in a row",
			attack: `
for i in range(8):
    slow = list(lingering(2))
    write(b'"x"\n', slow)
    for c in slow: c.close()
os.kill(worker, signal.SIGSTOP)
for i in range(8):
    slow = list(lingering(2))
    write(b'"x"\n', slow)
    for c in slow: c.close()
os.kill(worker, signal.SIGKILL)
`, until: "worker.crashed", logs: []string{"worker.crashed"}}.row(),
	}
}
