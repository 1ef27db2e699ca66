package handoff

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run is the kernel's interpreter of classic BPF, for a datagram without and with its IP
// header. Like the kernel it answers 0 where it reads beyond the datagram.
func (p program) run(t *testing.T, payload, packet []byte) uint32 {
	var a, x uint32
	var memory [16]uint32
	load := func(at uint32, n int) (uint32, bool) {
		b := payload
		if at >= netOff {
			b, at = packet, at-netOff
		}
		if int64(at)+int64(n) > int64(len(b)) {
			return 0, false
		}
		v := uint32(0)
		for _, c := range b[at : int(at)+n] {
			v = v<<8 | uint32(c)
		}
		return v, true
	}
	for pc := 0; pc < len(p); pc++ {
		in, ok := p[pc], true
		branch := func(yes bool) {
			if pc += int(in.Jf); yes {
				pc += int(in.Jt) - int(in.Jf)
			}
		}
		switch in.Code {
		case ldLen:
			a = uint32(len(payload))
		case ldBAbs:
			a, ok = load(in.K, 1)
		case ldHAbs:
			a, ok = load(in.K, 2)
		case ldWAbs:
			a, ok = load(in.K, 4)
		case ldHInd:
			a, ok = load(in.K+x, 2)
		case ldWInd:
			a, ok = load(in.K+x, 4)
		case ldMem:
			a = memory[in.K]
		case st:
			memory[in.K] = a
		case ldxK:
			x = in.K
		case tax:
			x = a
		case andK:
			a &= in.K
		case lshK:
			a <<= in.K
		case rshK:
			a >>= in.K
		case mulK:
			a *= in.K
		case modK:
			a %= in.K
		case addK:
			a += in.K
		case xorX:
			a ^= x
		case ja:
			pc += int(in.K)
		case jeqK:
			branch(a == in.K)
		case jgeK:
			branch(a >= in.K)
		case jsetK:
			branch(a&in.K != 0)
		case retK:
			return in.K
		case retA:
			return a
		default:
			t.Fatalf("instruction %d: %#x", pc, in.Code)
		}
		if !ok {
			return 0
		}
	}
	t.Fatal("the program does not return")
	return 0
}

// connectionOf is what connectionProgram does, in Go: the place in tags; -1: none.
func connectionOf(b []byte, tags []uint32) int {
	if len(b) < 12 {
		return -1
	}
	id := b[6:]
	if b[0]&0x80 == 0 {
		if b[0]&0x40 == 0 {
			return -1
		}
		id = b[1:]
	}
	if id[0] != 0xc9 || id[1] != 0xf1 {
		return -1
	}
	return slices.Index(tags, binary.BigEndian.Uint32(id[2:]))
}

// ipv4 and ipv6 are a datagram with its headers.
func ipv4(from uint32, port uint16, payload []byte) []byte {
	h := make([]byte, 28)
	h[0] = 0x45
	binary.BigEndian.PutUint32(h[12:], from)
	binary.BigEndian.PutUint16(h[20:], port)
	return append(h, payload...)
}

func ipv6(from uint32, port uint16, payload []byte) []byte {
	h := make([]byte, 48)
	h[0] = 0x60
	binary.BigEndian.PutUint32(h[8:], from)
	binary.BigEndian.PutUint16(h[40:], port)
	return append(h, payload...)
}

// FuzzConnection: a datagram of anybody goes to the socket that its connection id names, and
// every other as if there were no tags.
func FuzzConnection(f *testing.F) {
	for _, tag := range []uint32{1, 2, 3, 0x01000000} {
		id := ConnectionIDPrefix(tag)
		f.Add(append(append([]byte{0x40}, id...), make([]byte, 20)...), uint32(0x7f000001), uint16(5000), uint8(3))
		f.Add(append(append([]byte{0xc0, 0, 0, 0, 1, 12}, id...), make([]byte, 20)...), uint32(0x7f000001), uint16(5001), uint8(2))
		f.Add(append([]byte{0x40}, id...), uint32(1), uint16(1), uint8(1))
	}
	f.Add([]byte{}, uint32(2), uint16(2), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, from uint32, port uint16, n uint8) {
		holdsConnections(t, b, from, port, int(n)%40)
	})
}

func holdsConnections(t *testing.T, b []byte, from uint32, port uint16, n int) {
	targets := [][]int{{0}, {2, 3}, nil, {5}}
	tags, indexes := []uint32{}, [][]int{}
	for i := range n {
		tags, indexes = append(tags, uint32(i+1)), append(indexes, []int{i + 4})
	}
	if n > 2 {
		indexes[2] = []int{1, 2, 3} // several sockets
	}
	rest := datagramProgram(targets)
	p := connectionProgram(tags, indexes, rest)
	for _, packet := range [][]byte{ipv4(from, port, b), ipv6(from, port, b)} {
		got, want := p.run(t, b, packet), []int{int(rest.run(t, b, packet))}
		if i := connectionOf(b, tags); i >= 0 {
			want = indexes[i]
		}
		if !slices.Contains(want, int(got)) {
			t.Errorf("%x from %x:%d, %d tags: socket %d, not %d", b, from, port, n, got, want)
		}
	}
}

// Random datagrams that are nearly packets of QUIC.
func TestConnectionProgram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	named := 0
	for range count(1_000_000, 20_000) {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if at := [...]int{1, 6, 6, 5}[r.IntN(4)]; len(b) > at {
			copy(b[at:], ConnectionIDPrefix(r.Uint32N(12)))
		}
		n := r.IntN(12)
		holdsConnections(t, b, r.Uint32(), uint16(r.Uint32()), n)
		tags := []uint32{1, 2, 3}
		if connectionOf(b, tags) >= 0 {
			named++
		}
	}
	if named == 0 {
		t.Error("none has a connection id of a tag")
	}
}

// Without a tag the program is that of before: an older master attaches the same.
func TestConnectionProgramWithoutTags(t *testing.T) {
	rest := datagramProgram([][]int{{0}, {1}})
	if !connectionProgram(nil, nil, rest).equal(rest) {
		t.Error("no tags, and another program")
	}
	var tags []uint32
	var indexes [][]int
	for i := range unix.BPF_MAXINSNS / 2 { // too many for one program
		tags, indexes = append(tags, uint32(i+1)), append(indexes, []int{i})
	}
	if !connectionProgram(tags, indexes, rest).equal(rest) {
		t.Error("a program that the kernel refuses")
	}
	const many = 1000
	b := append(append([]byte{0x40}, ConnectionIDPrefix(many)...), make([]byte, 20)...)
	if got := connectionProgram(tags[:many], indexes[:many], rest).run(t, b, ipv4(1, 2, b)); got != many-1 {
		t.Errorf("tag %d goes to socket %d", many, got)
	}
}

// connection is the client of a connection: every datagram is from another port, and names
// the worker that its first one has reached.
type connection struct {
	d    *datagrams
	tag  uint32
	long bool
}

// ask returns who answers; a datagram of 0x40 or 0xc0, the id, and what was asked.
func (c connection) ask() (tag uint32, err error) {
	b := []byte{0x40}
	if c.long {
		b = []byte{0xc0, 0, 0, 0, 1, 12}
	}
	b = append(append(b, ConnectionIDPrefix(c.tag)...), make([]byte, 6)...)
	conn := dialUDP(c.d.t, c.d.cfg.Addr)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	b = make([]byte, 100)
	if _, err := conn.Read(b); err != nil {
		return 0, err
	}
	return tagOf(int(b[0]), int(b[1])), nil
}

func tagOf(slot, generation int) uint32 { return uint32(generation*10 + slot) }

// A connection stays with its worker whatever its client's port, over handovers, until the
// worker is gone. New clients go to the new generation.
func TestConnectionsStay(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(addr, func(t *testing.T) {
			d := ownDatagrams(t, Config{Addr: freeUDP(t, netip.MustParseAddr(addr))})
			const slots, generations = 2, 4
			var old, live []*echo
			for generation := 1; generation <= generations; generation++ {
				live = d.generation(slots, generation)
				d.call(func() {
					for slot, e := range live {
						e.socket.Tag(tagOf(slot, generation))
					}
				})
				d.steer(live)
				d.quiet(old)
				if generation == 3 { // the first is gone, and a later socket has its place
					for _, e := range old[:slots] {
						e.leave()
					}
					old = old[slots:]
				}
				for _, e := range slices.Concat(old, live) {
					for i := range 20 {
						want := tagOf(e.slot, e.generation)
						if got, err := (connection{d, want, i%2 == 0}).ask(); err != nil || got != want {
							t.Fatalf("generation %d, connection of %d: %d answers, %v", generation, want, got, err)
						}
					}
				}
				for i := range 20 {
					c := dialUDP(t, d.cfg.Addr)
					if _, g, err := ask(c, uint32(i)); err != nil || g != generation {
						t.Errorf("generation %d answers a new client, not %d: %v", g, generation, err)
					}
					c.Close()
				}
				serves := generation
				if generation < 3 {
					serves = 1
				}
				if got, err := (connection{d, tagOf(0, 1), false}).ask(); err != nil || got/10 != uint32(serves) {
					t.Errorf("generation %d, connection of the first: %d answers, %v", generation, got, err)
				}
				old = append(old, live...)
			}
			for _, e := range old {
				e.leave()
			}
		})
	}
}
