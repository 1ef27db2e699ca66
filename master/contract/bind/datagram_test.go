package bind

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/master/listeners"
)

func udpSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func bindUDP(fd int, addr string) *fake {
	f := bind(fd, addr)
	f.r.Kind = bindintercept.UDP
	return f
}

func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// Each worker's own socket is bound, and listens; what a dead worker has not read is the
// next one's.
func TestDatagram(t *testing.T) {
	w := start(t)
	at := freeUDP(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	fds := []int{udpSocket(t), udpSocket(t)}
	inodes := []uint64{inode(fds[0]), inode(fds[1])}
	w.wants(s1.call(bindUDP(fds[0], at)), "answered", "1 Listening")
	w.wants(s2.call(bindUDP(fds[1], at)), "answered", "2 Listening")
	for i, fd := range fds {
		if n := port(fd); n != int(netip.MustParseAddrPort(at).Port()) || inode(fd) != inodes[i] {
			t.Errorf("socket %d is bound to %d, and of inode %d, was %d", i, n, inode(fd), inodes[i])
		}
	}
	if a := w.Table.Addresses(); len(a) != 1 || !a[0].Accepts(1) || !a[0].Accepts(2) || a[0].Name() != "udp "+at {
		t.Errorf("%+v", a)
	}
	w.wants(s1.call(bindUDP(fds[0], at)), "continued")       // EINVAL
	w.wants(s1.call(bindUDP(udpSocket(t), at)), "continued") // EADDRINUSE

	w.Table.SetTargets([]listeners.Worker{1, 2})
	w.Steer()
	client, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("question"))
	w.Table.ReleaseAll(1, time.Now())
	w.Table.ReleaseAll(2, time.Now())
	for id, slot := range []int{0, 1} {
		fd := udpSocket(t)
		got := w.session(listeners.Worker(3+id), slot).call(bindUDP(fd, at))
		b := make([]byte, 100)
		if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err == nil && string(b[:n]) == "question" {
			return
		}
		t.Log(got)
	}
	t.Error("nobody has got what waited")
}

// What cannot be steered, or means to ask, is the program's own.
func TestOwnDatagram(t *testing.T) {
	w := start(t)
	s := w.session(1, 0)
	w.wants(s.call(bindUDP(udpSocket(t), "127.0.0.1:0")), "continued")
	w.wants(s.call(bindUDP(udpSocket(t), "224.0.0.251:5353")), "continued")
	device := udpSocket(t)
	unix.SetsockoptInt(device, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 1)
	f := bindUDP(device, freeUDP(t))
	f.r.Own = bindintercept.BoundToDevice
	w.wants(s.call(f), "continued", "1 Own")
	if a := w.Table.Addresses(); len(a) != 0 {
		t.Errorf("held: %+v", a)
	}
}

// A worker that serves binds a socket to ask from: it is held only once another worker wants
// its address.
func TestLaterDatagram(t *testing.T) {
	w := start(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	s1.PID, s2.PID = os.Getpid(), os.Getpid()
	w.Table.SetTargets([]listeners.Worker{1})
	at := freeUDP(t)
	w.wants(s1.call(bindUDP(udpSocket(t), at)), "answered")
	if a := w.Table.Addresses(); len(a) != 0 {
		t.Errorf("held: %+v", a)
	}
	closed := udpSocket(t)
	gone := freeUDP(t)
	w.wants(s1.call(bindUDP(closed, gone)), "answered")
	unix.Close(closed)
	w.wants(s2.call(bindUDP(udpSocket(t), at)), "answered", "2 Listening")
	w.wants(s2.call(bindUDP(udpSocket(t), gone)), "answered", "2 Listening")
	a := w.Table.Addresses()
	if len(a) != 2 || !a[0].Accepts(1) || !a[0].Accepts(2) || a[1].Accepts(1) || !a[1].Accepts(2) {
		t.Errorf("%+v", a)
	}
}

// What a worker has closed is in nobody's way: no datagram is taken there, and the worker
// binds a wider address, while the keeper has its duplicate of the closed one still.
func TestDatagramClosed(t *testing.T) {
	w := start(t)
	at := freeUDP(t)
	_, port, _ := net.SplitHostPort(at)
	s := w.session(1, 0)
	fd := udpSocket(t)
	w.wants(s.call(bindUDP(fd, at)), "answered", "1 Listening")
	kept, err := unix.FcntlInt(uintptr(w.Table.Addresses()[0].LeaseOf(1).FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	keeper := s.contract.keeper
	s.contract.keeper = os.Getpid() // whose duplicate does not count as the worker's
	defer func() { s.contract.keeper = keeper }()
	gone := exec.Command("true") // which has none of the sockets
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	s.PID = gone.Process.Pid
	wide := udpSocket(t)
	f := bindUDP(wide, "0.0.0.0:"+port)
	f.r.TGID = s.PID
	w.wants(s.call(f), "answered", "1 Listening")
	client, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("question"))
	if n, _, err := unix.Recvfrom(wide, make([]byte, 100), unix.MSG_DONTWAIT); n != len("question") {
		t.Error("the new socket got nothing: ", err)
	}
}

// A bind that fails leaves the socket as it was: it can join the others at another address.
func TestDatagramBindFails(t *testing.T) {
	w := start(t)
	at := freeUDP(t)
	s1, s2 := w.session(1, 0), w.session(2, 1)
	w.wants(s1.call(bindUDP(udpSocket(t), at)), "answered", "1 Listening")
	fd := udpSocket(t)
	w.wants(s2.call(bindUDP(fd, "192.0.2.1:53535")), "answered EADDRNOTAVAIL", "2 Refused")
	w.wants(s2.call(bindUDP(fd, at)), "answered", "2 Listening")
}
