package hostile

// Calls that are intercepted, and ways around that. They are of the contract of programs
// that know nothing of handoff.

// intercepted are the setups in which bind and listen are intercepted.
var intercepted = []setup{{false, true}, {false, false}}

// joins has a socket that binds the held address by other means, and listens.
const joins = `
def fresh():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return s
def address(p=port, family=socket.AF_INET): return struct.pack("=H", family) + struct.pack("!H4s8x", p, socket.inet_aton(host))
`

func callRows() []row {
	return []row{
		deed{name: "threads", setups: intercepted, tries: "100 threads bind and listen at once, to the held address, to port 0 and to others, in a loop",
			attack: joins + `
def binds(i):
    while True:
        s = fresh()
        may(s.bind, (host, (port, 0, 1, port)[i % 4]))
        may(s.listen)
        s.close()
for i in range(100): threading.Thread(target=binds, args=(i,)).start()
say("done")
`, logs: []string{"worker.refused", "address.refused"}}.row(),
		deed{name: "address-changes", setups: intercepted, tries: "an address that changes while it is read, of 4 threads",
			attack: joins + `
a = ctypes.create_string_buffer(address(), 28)
def flip():
    while True:
        for family, p in (2, port), (10, port), (2, port + 1), (0, 0):
            struct.pack_into("=H", a, 0, family); struct.pack_into("!H", a, 2, p)
def binds():
    while True:
        s = fresh()
        libc.bind(s.fileno(), a, 16); libc.listen(s.fileno(), 5)
        s.close()
threading.Thread(target=flip).start()
for i in range(4): threading.Thread(target=binds).start()
say("done")
`}.row(),
		deed{name: "sockaddr", setups: intercepted, tries: "addresses of odd size, unaligned, beyond the end of a page, in memory that is not there, of families that do not fit",
			attack: joins + `
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.bind.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
page = libc.mmap(None, 8192, 3, 0x22, -1, 0)
libc.munmap(page + 4096, 4096)
results = set()
def bind(at, size):
    s = fresh()
    results.add(errno.errorcode.get(libc.bind(s.fileno(), at, size) and ctypes.get_errno(), "ok"))
    libc.listen(s.fileno(), 1)
    s.close()
for size in (0, 1, 2, 8, 15, 16, 17, 28, 128, 129, 4096, 4097, 2**31 - 1, 2**31, 2**32 - 1):
    for family in (0, 1, 2, 10, 16, 17, 40, 65535):
        for at in (page + 4096 - 16, page + 4096 - 8, page + 1, page + 4096 - 28):
            data = address(family=family)[:page + 4096 - at]
            ctypes.memmove(at, data, len(data))
            bind(at, size)
    for at in (0, 1, page + 4096, 2**63, 2**64 - 16): bind(at, size)
say("done", results)
`}.row(),
		deed{name: "int80", setups: intercepted, tries: "binds and listens by 32-bit system calls (int 0x80), which the filter does not stop, and answers nothing",
			attack: joins + `
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
page = libc.mmap(None, 4096, 7, 0x22 | 0x40, -1, 0) # MAP_32BIT
code = bytes.fromhex("53 89f8 89f3 89d1 cd80 5b c3") # push rbx; eax=edi; ebx=esi; ecx=edx; int 0x80; pop rbx; ret
ctypes.memmove(page, code, len(code))
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(page)
s = fresh()
ctypes.memmove(page + 256, address(), 16)
ctypes.memmove(page + 512, struct.pack("=III", s.fileno(), page + 256, 16), 12)
got = [call(102, 2, page + 512)]
ctypes.memmove(page + 512, struct.pack("=II", s.fileno(), 5), 8)
got.append(call(102, 4, page + 512))
say("done", got)
while True: time.sleep(1)
`, logs: []string{"address.stranger"}}.row(),
		deed{name: "io-uring", setups: intercepted, tries: "binds and listens by io_uring, which no filter sees, and answers nothing",
			attack: joins + `
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params)
if ring < 0:
    say("done", "io_uring_setup: " + errno.errorcode[ctypes.get_errno()])
    while True: time.sleep(1)
p = struct.unpack_from("=30I", params)
sq, sqes = libc.mmap(None, 16384, 3, 0x8001, ring, 0), libc.mmap(None, 4096, 3, 0x8001, ring, 0x10000000)
tail, array, cqes = p[11], p[16], p[25]
a = ctypes.create_string_buffer(address())
def submit(op, fd, at, size):
    at64 = ctypes.addressof(a) if at else 0
    ctypes.memmove(sqes, struct.pack("=BBHiQQII", op, 0, 0, fd, size if op == 56 else 0, at64, 0 if op == 56 else size, 0).ljust(64, b"\0"), 64)
    n = ctypes.c_uint32.from_address(sq + tail)
    ctypes.c_uint32.from_address(sq + array + 4 * (n.value & 3)).value = 0
    n.value += 1
    libc.syscall(426, ring, 1, 1, 1, 0, 0)
    return struct.unpack("=Qi", ctypes.string_at(sq + cqes + 16 * ((n.value - 1) % p[1]), 12))[1]
s = fresh()
say("done", [submit(56, s.fileno(), True, 16), submit(57, s.fileno(), False, 5)])
while True: time.sleep(1)
`, logs: []string{"address.stranger"}}.row(),
		deed{name: "flood", setups: intercepted, tries: "64 processes call bind and listen without end, and are killed in the middle of their calls",
			attack: joins + `
def child():
    while True:
        s = fresh(); may(s.bind, (host, port)); may(s.listen); s.close()
pids = []
for i in range(64):
    pid = os.fork()
    if pid == 0: child()
    pids.append(pid)
say("done")
while True:
    for i in range(len(pids)):
        os.kill(pids[i], 9); os.waitpid(pids[i], 0)
        pids[i] = os.fork()
        if pids[i] == 0: child()
        time.sleep(.005)
`}.row(),
		deed{name: "no-address", setups: intercepted, tries: "an address in memory that nobody fills (userfaultfd): reading it never ends",
			attack: joins + `
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
u = libc.syscall(323, os.O_CLOEXEC | 1)
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
got = [u, libc.ioctl(u, ctypes.c_ulong(0xc018aa3f), struct.pack("=QQQ", 0xAA, 0, 0)), libc.ioctl(u, ctypes.c_ulong(0xc020aa00), struct.pack("=QQQQ", page, 4096, 1, 0))]
say("done", got)
s = fresh()
libc.bind(s.fileno(), ctypes.c_void_p(page), 16)
`}.row(),
	}
}
