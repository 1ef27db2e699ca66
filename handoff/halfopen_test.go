package handoff

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
	"net/http"
)

// A handshake that is half open when its listener is steered away keeps the
// listener from being quiet until it has ended. (TCP_DEFER_ACCEPT holds it
// half open here: the connection exists for the listener only with its first
// byte.)
func TestQuietWaitsForHalfOpenHandshakes(t *testing.T) {
	o := own(t, Config{})
	workers := o.generation(2, 1)
	unix.SetsockoptInt(workers[0].socket.FD(), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5)
	o.steer(workers[:1])
	c, err := net.Dial("tcp", o.group.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer := netip.MustParseAddrPort(c.LocalAddr().String())
	open, err := halfOpen(o.group.Addr())
	if _, ok := open[peer]; err != nil || !ok {
		t.Fatalf("half open: %v, %v; want %v among them", open, err, peer)
	}
	o.steer([]*server{workers[1]})
	now := time.Now()
	q := workers[0].socket.Quiet(now, 0)
	now = now.Add(settle)
	if ok, again := q.Look(now); ok || again <= 0 {
		t.Fatal("quiet with a handshake under way")
	}
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 15)
	if _, err := c.Read(b); err != nil || string(b) != "HTTP/1.1 200 OK" {
		t.Fatalf("%q, %v", b, err)
	}
	for i := 0; ; i++ {
		now = now.Add(quietLook)
		if ok, _ := q.Look(now); ok {
			break
		}
		if i > 1000 {
			t.Fatal("never quiet")
		}
	}
	for _, w := range workers {
		w.leave()
	}
}

func FuzzDiag(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		sockets := 0
		done, err := parseDiag(b, func(m []byte) {
			if sockets++; len(m) < diagMsgSize || len(m) > len(b) {
				t.Errorf("%d bytes of %d", len(m), len(b))
			}
			diagPeer(m)
			diagListener(m)
		})
		if sockets > len(b)/diagMsgSize || done && len(b) == 0 {
			t.Errorf("%d sockets of %d bytes, %v, %v", sockets, len(b), done, err)
		}
	})
}

// Sticky by an IPv6 client's /64, in a network namespace of its own with
// addresses of its own.
func TestStickyIPv6(t *testing.T) {
	if os.Getenv("HANDOFF_NETNS") == "" {
		if _, err := exec.LookPath("ip"); err != nil {
			t.Skip("needs iproute2")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestStickyIPv6$", "-test.v")
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
	var sources []net.IP
	ip := func(args ...string) {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	ip("link", "set", "lo", "up")
	const nets, hosts = 60, 2
	for n := range nets {
		for h := range hosts {
			a := fmt.Sprintf("2001:db8:0:%x::%x", n+1, h+1)
			ip("-6", "addr", "add", a+"/128", "dev", "lo", "nodad")
			sources = append(sources, net.ParseIP(a))
		}
	}
	o := own(t, Config{Balance: Sticky, Addr: netip.MustParseAddrPort("[::]:0")})
	port := strconv.Itoa(int(o.group.Addr().Port()))
	ask := func() []string {
		slots := make([]string, len(sources))
		var mu sync.Mutex
		run := load.Start(load.Config{Addr: "[::1]:" + port, Clients: len(sources), Sources: sources,
			Observe: func(c int, h http.Header) { mu.Lock(); slots[c] = h.Get("X-Slot"); mu.Unlock() }})
		run.Await(3*int64(len(sources)), 10*time.Second)
		zero(t, run.Stop())
		return slots
	}
	old := o.generation(4, 1)
	o.steer(old)
	first := ask()
	counts := make([]int64, 4)
	for n := range nets {
		if first[n*hosts] != first[n*hosts+1] {
			t.Errorf("two hosts of network %d are at slots %s and %s", n, first[n*hosts], first[n*hosts+1])
		}
		slot, _ := strconv.Atoi(first[n*hosts])
		counts[slot]++
	}
	t.Logf("networks of each slot: %v", counts)
	next := o.generation(4, 2)
	o.steer(next)
	o.quiet(old)
	for _, s := range old {
		s.leave()
	}
	if moved := differ(first, ask()); moved != 0 {
		t.Errorf("%d clients moved in a reload", moved)
	}
	for _, s := range next {
		s.leave()
	}
}
