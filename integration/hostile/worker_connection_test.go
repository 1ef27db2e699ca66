package hostile

// Connections that a worker has accepted, which handoff duplicates before its drain signal.

// accepts has the attacker accept connections of the held address: clients of its own, some of
// which have sent a request and others one byte, and whoever comes between.
const accepts = `
sock.settimeout(.05)
ours, taken = [], []
while len(taken) < 4 and len(ours) < 200:
    c = socket.create_connection((host, port))
    c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" if len(ours) % 2 else b"G")
    ours.append(c)
    try: taken.append(sock.accept()[0])
    except OSError: pass
`

func connectionRows() []row {
	return []row{
		deed{name: "connections-exchanged", setups: intercepted, tries: "exchanges the descriptors of connections that it has accepted for its listening socket, its own connections to elsewhere, pipes and files, in a loop, over the reload",
			attack: accepts + `
far = socket.socket(); far.bind((host, 0)); far.listen()
others = [far.fileno(), sock.fileno(), socket.create_connection(far.getsockname()).detach(), ours[0].fileno(), *os.pipe(), os.open("/dev/zero", os.O_RDONLY)]
spare = [os.dup(t.fileno()) for t in taken]
say("done", len(taken))
while True:
    for t, s in zip(taken, spare):
        for o in others: os.dup2(o, t.fileno())
        os.dup2(s, t.fileno())
`}.row(),
		deed{name: "connections-kept", setups: intercepted, tries: "keeps connections that it has accepted open for ever, in three processes, with filters of its own that cannot be taken off, and SO_LINGER of an hour",
			attack: program + accepts + `
def attach_to(t, instructions):
    code = b"".join(struct.pack("=HBBI", *i) for i in instructions)
    b = ctypes.create_string_buffer(code)
    return t.setsockopt(socket.SOL_SOCKET, 26, struct.pack("=HxxxxxxQ", len(instructions), ctypes.addressof(b)))
for i, t in enumerate(taken):
    t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    may(t.send, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    if i % 2: may(attach_to, t, [(6, 0, 0, 0)]); may(t.setsockopt, socket.SOL_SOCKET, 44, 1)
for i in range(2):
    if os.fork() == 0: break
else: say("done", len(taken))
while True: time.sleep(3600)
`}.row(),
	}
}
