package hostile

// Options of the listening socket that a worker shares with handoff, and calls on it.

// program attaches a steering program of the attacker's own; choose is its C-like source as
// instructions of classic BPF.
const program = `
def attach(instructions, option=51):
    code = b"".join(struct.pack("=HBBI", *i) for i in instructions)
    b = ctypes.create_string_buffer(code)
    prog = struct.pack("=HxxxxxxQ", len(instructions), ctypes.addressof(b))
    return sock.setsockopt(socket.SOL_SOCKET, option, prog)
`

func socketRows() []row {
	return []row{
		deed{name: "own-program", short: true, tries: "attaches a steering program of its own that sends all to its socket, in a loop, over the reload",
			attack: program + `
say("done", may(attach, [(6, 0, 0, 0)]))
while True: may(attach, [(6, 0, 0, 0)]); time.sleep(.001)
`}.row(),
		deed{name: "own-program-elsewhere", tries: "attaches a steering program that sends all to the other worker's socket, once and in a loop, over the reload",
			attack: program + `
say("done", may(attach, [(6, 0, 0, 1)]))
while True: may(attach, [(6, 0, 0, 1)]); time.sleep(.001)
`}.row(),
		deed{name: "own-program-left", tries: "attaches a steering program once, which sends all to its socket, and leaves it",
			attack: program + `say("done", may(attach, [(6, 0, 0, 0)]))`}.row(),
		deed{name: "detach", tries: "detaches the steering program, in a loop",
			attack: `
say("done", may(sock.setsockopt, socket.SOL_SOCKET, 68, 0))
while True: may(sock.setsockopt, socket.SOL_SOCKET, 68, 0); time.sleep(.001)
`}.row(),
		deed{name: "lock-filter", short: true, tries: "SO_LOCK_FILTER, so that no steering program can be attached by its socket",
			attack: set("socket.SOL_SOCKET, 44, 1"), logs: []string{"address.mended"}}.row(),
		deed{name: "filter", tries: "SO_ATTACH_FILTER with a program that drops every packet, and SO_LOCK_FILTER",
			attack: program + `say("done", [may(attach, [(6, 0, 0, 0)], 26), may(sock.setsockopt, socket.SOL_SOCKET, 44, 1)])`, logs: []string{"address.mended"}}.row(),
		deed{name: "md5", tries: "TCP_MD5SIG keys for every client: unsigned connections are dropped, and nobody can read that",
			attack: `
def key(flags, last):
    addr = struct.pack("=HH4s", socket.AF_INET, 0, bytes([127, 9, 9, last])).ljust(128, b"\0")
    return addr + struct.pack("=BBHi", flags, 0, 4, 0) + b"keys".ljust(80, b"\0")
SIG, EXT, PREFIX = 14, 32, 1 # TCP_MD5SIG, TCP_MD5SIG_EXT with a prefix of no bits: everybody
say("done", [may(sock.setsockopt, socket.IPPROTO_TCP, EXT, key(PREFIX, 0))] + [may(sock.setsockopt, socket.IPPROTO_TCP, SIG, key(0, i)) for i in range(1, 17)])
`, logs: []string{"address.mended", "address.failed"}, needs: md5Signatures}.row(),
		deed{name: "device", tries: "SO_BINDTODEVICE to a device by which no client comes",
			attack: `
names = [n for _, n in socket.if_nameindex() if n != "lo"] + ["lo"]
say("done", may(sock.setsockopt, socket.SOL_SOCKET, 25, names[0].encode()))
`, logs: []string{"address.mended"}}.row(),
		deed{name: "options", tries: "SO_LINGER 0, TCP_DEFER_ACCEPT, SO_RCVBUF, IP_TTL, IP_MINTTL, TCP_MAXSEG, TCP_TX_DELAY, TCP_CONGESTION, IPV6_V6ONLY, SO_REUSEPORT off, SO_INCOMING_CPU, SO_KEEPALIVE, TCP_USER_TIMEOUT, TCP_SYNCNT",
			attack: `
S, I, T = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_TCP
all = [(S, 13, struct.pack("ii", 1, 0)), (T, 9, 3600), (S, 8, 1), (I, 2, 1), (I, 21, 255), (T, 2, 88), (T, 37, 2000000), (T, 13, b"reno"),
    (socket.IPPROTO_IPV6, 26, 1), (S, 15, 0), (S, 49, 1), (S, 9, 1), (T, 18, 1), (T, 7, 1)]
say("done", [may(sock.setsockopt, *o) for o in all])
`, logs: []string{"address.mended"}}.row(),
		deed{name: "backlog", tries: "listen(fd, 0) in a loop",
			attack: `
say("done", may(sock.listen, 0))
while True: may(sock.listen, 0); time.sleep(.001)
`}.row(),
		deed{name: "shutdown", short: true, tries: "shutdown(2) of the listening socket, in a loop",
			attack: `
say("done", may(sock.shutdown, socket.SHUT_RDWR))
while True: may(sock.shutdown, socket.SHUT_RDWR); time.sleep(.01)
`, logs: []string{"address.mended"}}.row(),
		deed{name: "shutdown-listen", setups: []setup{{true, true}, {true, false}}, tries: "shutdown(2) and listen(2) at once, in a loop: its socket becomes the last in the kernel's order, and no event says so",
			attack: `
def again(): sock.shutdown(socket.SHUT_RDWR); sock.listen(4096)
say("done", may(again))
while True: may(again); time.sleep(.01)
`, logs: []string{"address.mended"}}.row(),
		deed{name: "unspec", tries: "connect(2) to AF_UNSPEC, which ends listening, in a loop",
			attack: `
unspec = bytes(16)
say("done", libc.connect(fd, unspec, 16))
while True: libc.connect(fd, unspec, 16); time.sleep(.01)
`, logs: []string{"address.mended"}}.row(),
		deed{name: "nonblock", tries: "clears and sets O_NONBLOCK in a loop",
			attack: `
say("done")
while True: sock.setblocking(True); sock.setblocking(False)
`, logs: []string{"address.mended"}}.row(),
		deed{name: "signals", tries: "O_ASYNC with F_SETOWN and F_SETSIG: each connection at its socket sends SIGKILL to a sibling, also when a later worker has the socket",
			attack: `
siblings = []
for p in os.listdir("/proc"):
    try:
        env = open(f"/proc/{p}/environ", "rb").read() if p.isdigit() else b""
        if b"WORKER_ID=1" in env and b"HANDOFF_INSTANCE=" + os.environ["HANDOFF_INSTANCE"].encode() in env: siblings.append(int(p))
    except OSError: pass
target = siblings[0] if siblings else os.getpgrp()
done = [may(fcntl.fcntl, fd, fcntl.F_SETOWN, target), may(fcntl.fcntl, fd, 10, signal.SIGKILL), may(fcntl.fcntl, fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)]
say("done", [target, done])
`, logs: []string{"worker.crashed"}, limit: "a worker can kill others of its user, by kill(2) as well; with its socket, that ends"}.row(),
		deed{name: "epoll", tries: "adds the socket to 50 epoll instances, nested and exclusive, by a process that never accepts",
			attack: `
import select
all = []
for i in range(50):
    e = select.epoll()
    e.register(fd, select.EPOLLIN | (1 << 28 if i % 2 else select.EPOLLET))
    if all and not i % 2 and i < 8: may(e.register, all[-1].fileno(), select.EPOLLIN)
    all.append(e)
say("done")
while True: all[0].poll(1)
`}.row(),
	}
}
