package handoff

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"handoff/internal/load"
)

// The rules in the kernel's language choose as the same rules in Go do, for packets that match
// and for those that nearly do.
func TestProbeRules(t *testing.T) {
	const other = 4000 // what the program behind them would choose
	addresses := []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("10.1.2.3"),
		netip.MustParseAddr("::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::1:0:0:1"),
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	source := func() netip.AddrPort {
		return netip.AddrPortFrom(addresses[r.IntN(len(addresses))], uint16(40000+r.IntN(6)))
	}
	matched := 0
	for range 3000 {
		rules, model := []rule(nil), map[netip.AddrPort]int{}
		for i := range r.IntN(maxProbes + 1) {
			if from := source(); model[from] == 0 {
				model[from] = i + 1
				rules = append(rules, rule{from, i + 1})
			}
		}
		vm := simulated(t, append(probeRules(rules), randomOf([]int{other})...))
		for range 20 {
			from, extended := source(), r.IntN(8) == 0
			want := other
			if index := model[from]; index != 0 && !(extended && from.Addr().Is6()) {
				want = index
				matched++
			}
			if got, err := vm.Run(packet(from, r, extended)); err != nil || got != want {
				t.Fatalf("seed %d: from %v (extended %v) to %d, want %d (%v) with %v", seed, from, extended, got, want, err, rules)
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d packets have matched", matched)
	}
}

// simulated is a program for packets that begin at their IP header.
func simulated(t *testing.T, p program) *bpf.VM {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(p))
	for i, in := range p {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
		if in.K >= netOff && in.Code&0x07 == unix.BPF_LD {
			raw[i].K -= netOff
		}
	}
	list, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("not all is an instruction: %v", list)
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// packet is a SYN. An extended one has options in its IP header.
func packet(from netip.AddrPort, r *rand.Rand, extended bool) []byte {
	var ip []byte
	if from.Addr().Is4() {
		ip = make([]byte, 20)
		if ip[0] = 0x45; extended {
			ip = append(ip, make([]byte, 12)...)
			ip[0] = 0x48
		}
		copy(ip[12:], from.Addr().AsSlice())
	} else {
		ip = make([]byte, 40)
		if ip[0], ip[6] = 0x60, unix.IPPROTO_TCP; extended {
			ip[6] = unix.IPPROTO_DSTOPTS
		}
		copy(ip[8:], from.Addr().AsSlice())
	}
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], uint16(r.Uint32()))
	return append(ip, tcp...)
}

// answer asks by a probe which generation and slot has it.
func (o *owner) answer(p *Probe) (string, error) {
	var fd int
	var err error
	if o.call(func() { fd, err = unix.FcntlInt(uintptr(p.FD()), unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	f.SetDeadline(time.Now().Add(wait))
	if _, err := f.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOTCONN) {
		return "", err
	}
	r, err := http.ReadResponse(bufio.NewReader(f), nil)
	if err != nil {
		return "", err
	}
	r.Body.Close()
	return r.Header.Get("X-Generation") + "/" + r.Header.Get("X-Slot"), nil
}

// A probe reaches the worker that it is for: one that serves, and one that nobody else is
// steered to. Others reach only those that serve, meanwhile and afterwards.
func TestProbeReachesItsWorker(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "127.7.0.9:0", "[::1]:0", "[::]:0"} {
		for _, balance := range []Balance{Even, Sticky} {
			t.Run(fmt.Sprint(balance, " ", at), func(t *testing.T) { probes(t, netip.MustParseAddrPort(at), balance) })
		}
	}
}

func probes(t *testing.T, at netip.AddrPort, balance Balance) {
	o := own(t, Config{Addr: at, Balance: balance})
	live := o.generation(3, 1)
	o.steer(live)
	dark := o.generation(3, 2)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), o.group.Addr().Port())
	if a := at.Addr(); !a.IsUnspecified() {
		to = netip.AddrPortFrom(a, to.Port())
	} else if a.Is6() {
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	run := load.Start(load.Config{Addr: to.String(), Clients: 4})
	for range 5 {
		probing := map[*Probe]string{}
		for i, generation := range [][]*server{live, dark} {
			for slot, s := range generation {
				var p *Probe
				var err error
				if o.call(func() { p, err = o.group.Probe(s.socket) }); err != nil {
					t.Fatal(err)
				}
				probing[p] = fmt.Sprintf("%d/%d", i+1, slot)
			}
		}
		for p, want := range probing {
			if err := p.Await(time.Now().Add(wait)); err != nil {
				t.Error(err)
			}
			if got, err := o.answer(p); err != nil || got != want || !p.Reaches() {
				t.Errorf("probe from %v: %q, want %q (%v, reaches %v)", p.From(), got, want, err, p.Reaches())
			}
			// Nobody else can have the source meanwhile.
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(p.From())}
			if c, err := d.Dial("tcp", o.group.Addr().String()); err == nil {
				t.Errorf("another connection from %v", p.From())
				c.Close()
			}
		}
		for p := range probing {
			o.call(p.Close)
		}
	}
	run.Await(200, wait)
	r := run.Stop()
	zero(t, r)
	served := map[int]int64{}
	for i, generation := range [][]*server{live, dark} {
		for _, s := range generation {
			served[i] += s.served.Load()
		}
	}
	if served[1] != 5*3 {
		t.Errorf("the dark generation has served %d, want the 15 probes", served[1])
	}
	o.call(func() {
		if !o.group.program.equal(o.group.base) || len(o.group.probes) != 0 {
			t.Error("rules are left")
		}
	})
	for _, s := range append(live, dark...) {
		s.leave()
	}
}

// The rule follows its socket's index while others leave and workers are steered, and a
// connection whose handshake ends later still reaches its worker.
func TestProbeWhileSteering(t *testing.T) {
	o := own(t, Config{})
	live := o.generation(2, 1)
	o.steer(live)
	dark := o.generation(2, 2)
	var p *Probe
	o.call(func() {
		var err error
		if p, err = o.group.Probe(dark[1].socket); err != nil {
			t.Fatal(err)
		}
		// The socket before it leaves: the last one, its own, moves there.
		before := len(o.group.order)
		if err := o.group.drop(o.group.order[0]); err != nil {
			t.Fatal(err)
		}
		if err := o.group.Steer([]*Socket{live[1].socket}); err != nil || len(o.group.order) != before-1 {
			t.Fatal(err)
		}
		q, err := o.group.Probe(dark[1].socket)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		p = q
	})
	if got, err := o.answer(p); err != nil || got != "2/1" {
		t.Errorf("%q, %v", got, err)
	}
	o.call(func() {
		if arrived, err := p.Arrived(); !arrived || err != nil {
			t.Errorf("arrived %v, %v", arrived, err)
		}
		if err := o.group.drop(dark[1].socket); err != nil {
			t.Fatal(err)
		}
		if err := o.group.reattach(); err != nil || p.Reaches() {
			t.Errorf("%v, reaches %v: its socket is closed", err, p.Reaches())
		}
		p.Close()
	})
}

// Probes that a worker leaves in its queue when it ends are nobody's: no connection of a client
// is among them, or all are reported.
func TestProbesAreLeftInAQueue(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::]:0"} {
		for _, client := range []bool{false, true} {
			o := own(t, Config{Addr: netip.MustParseAddrPort(at)})
			live := o.generation(1, 1)
			o.steer(live)
			var s *Socket
			var probes []*Probe
			o.call(func() {
				var err error
				if s, err = o.group.Take(1); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					p, err := o.group.Probe(s)
					if err != nil || p.Await(time.Now().Add(wait)) != nil {
						t.Fatal(err)
					}
					probes = append(probes, p)
				}
				probes[0].Close()
				if client {
					o.group.Steer([]*Socket{s})
				}
			})
			if client {
				c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(o.group.Addr().Port()))))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				o.steer(live)
			}
			o.call(func() {
				s.Release()
				probes[1].Close()
			})
			if client {
				if q := await[Queued](o); q.Socket.Pending() != 3 {
					t.Errorf("%d connections are left", q.Socket.Pending())
				}
			} else {
				for end, n := time.Now().Add(wait), 1; n > 0; o.call(func() { n = s.Pending() }) {
					if time.Now().After(end) {
						t.Fatalf("%d connections are left", n)
					}
				}
				select {
				case e := <-o.events:
					if q, ok := e.(Queued); ok {
						t.Errorf("%+v", q)
					}
				default:
				}
			}
			live[0].leave()
		}
	}
}

func TestProbeIsRefused(t *testing.T) {
	for _, cfg := range []Config{{Balance: Shared}, {NoProgram: true}} {
		o := own(t, cfg)
		o.call(func() {
			if _, err := o.group.Probe(o.group.order[0]); err == nil {
				t.Errorf("%+v: a probe of one socket", cfg)
			}
		})
	}
	o := own(t, Config{})
	live := o.generation(1, 1)
	o.steer(live)
	var late *Probe // its worker's queue is full
	o.call(func() {
		s, err := o.group.Take(1)
		if err == nil {
			unix.Listen(s.fd, 0)
			for range 3 {
				if late, err = o.group.Probe(s); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	if err := late.Await(time.Now().Add(20 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	o.call(func() {
		for _, p := range append([]*Probe(nil), o.group.probes...) {
			p.Close()
		}
		for range maxProbes {
			if _, err := o.group.Probe(live[0].socket); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := o.group.Probe(live[0].socket); !errors.Is(err, ErrManyProbes) {
			t.Error(err)
		}
		for _, p := range append([]*Probe(nil), o.group.probes...) {
			p.Close()
		}
	})
	live[0].leave()
}

// With SYN cookies the kernel chooses the socket again when the handshake ends.
func TestProbeWithSynCookies(t *testing.T) {
	if os.Getenv("HANDOFF_NETNS") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestProbeWithSynCookies$", "-test.v")
		cmd.Env = append(os.Environ(), "HANDOFF_NETNS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Skipf("no namespaces here: %v", err)
		}
		t.Logf("%s", out)
		if err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Error(err)
		}
		return
	}
	loopbackUp(t)
	for _, cookies := range []int{0, 1, 2} { // 2: always
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte(strconv.Itoa(cookies)), 0o644); err != nil {
			t.Skip(err)
		}
		t.Run(strconv.Itoa(cookies), func(t *testing.T) {
			for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
				probes(t, netip.MustParseAddrPort(at), Even)
			}
		})
	}
}

func loopbackUp(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, _ := unix.NewIfreq("lo")
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}
