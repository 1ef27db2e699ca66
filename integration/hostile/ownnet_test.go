package hostile

import (
	wire "encoding/binary"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envNetwork marks a run in a network namespace of its own, which has the handoff under
// test already: the file for its report.
const envNetwork = "HOSTILE_NETWORK"

// summary is what the run in the namespace reports.
type summary struct {
	Requests, Lost, Own int64
	Log, Limit          string
}

// ownNetwork runs the row once more, in a network namespace of its own with loopback, and
// takes its report over; it reports whether this is that run.
func ownNetwork(t *testing.T, r *report) bool {
	t.Helper()
	if to := os.Getenv(envNetwork); to != "" {
		t.Cleanup(func() {
			b, err := json.Marshal(summary{r.requests, r.lost, r.own, r.log, r.limit})
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		})
		return true
	}
	if !root() {
		t.Skip("only root makes a network namespace")
	}
	to := filepath.Join(t.TempDir(), "report")
	args := []string{"-n", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, os.Args[0], "-test.v", "-test.timeout=10m", "-test.run=^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"}
	if *long {
		args = append(args, "-long")
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), envNetwork+"="+to)
	out, err := cmd.CombinedOutput()
	t.Logf("in a network of its own:\n%s", out)
	var s summary
	if b, rerr := os.ReadFile(to); rerr == nil {
		json.Unmarshal(b, &s) // without one err says why
	}
	r.count(s.Requests, s.Lost, s.Own)
	r.says(s.Log)
	if s.Limit != "" {
		r.documented(s.Limit)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// sysctl sets values of the own network namespace.
func sysctl(t *testing.T, values ...string) {
	t.Helper()
	for _, v := range values {
		name, value, _ := strings.Cut(v, "=")
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// dialIdle makes connections on which nothing is ever sent.
func dialIdle(t *testing.T, addr string, n int) (all []net.Conn) {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	for i := range n {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 8, byte(i/250), byte(1+i%250))}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		all = append(all, c)
	}
	return all
}

// broken reports whether a connection on which nothing was sent has had anything but a
// regular end.
func broken(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Second))
	_, err := c.Read(make([]byte, 1))
	return err != nil && (strings.Contains(err.Error(), "reset") || os.IsTimeout(err))
}

// inside is an address of the own network namespace whose neighbours are nowhere: what is
// sent to them comes back, and is dropped, so that their handshakes stay half open.
const inside = "10.99.0.1"

// fromNowhere makes that network, and returns what sends SYNs from there.
func fromNowhere(t *testing.T) (flood func(addr string, n int)) {
	t.Helper()
	for _, args := range []string{"addr add " + inside + "/32 dev lo", "route add 10.99.0.0/16 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	sysctl(t, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.lo.rp_filter=0")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	sent := uint32(0)
	return func(addr string, n int) {
		t.Helper()
		to := netip.MustParseAddrPort(addr)
		for range n {
			sent++
			from := [4]byte{10, 99, byte(1 + sent>>8%200), byte(sent)}
			if err := unix.Sendto(fd, syn(from, uint16(20000+sent%30000), to), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
				t.Fatal(err)
			}
		}
		b, _ := os.ReadFile("/proc/net/tcp")
		t.Logf("%d handshakes are half open", strings.Count(string(b), " 03 "))
	}
}

// syn is the packet that asks for a connection.
func syn(from [4]byte, port uint16, to netip.AddrPort) []byte {
	dst := to.Addr().As4()
	p := make([]byte, 40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel adds length and checksum of IP
	copy(p[12:], from[:])
	copy(p[16:], dst[:])
	tcp := p[20:]
	wire.BigEndian.PutUint16(tcp, port)
	wire.BigEndian.PutUint16(tcp[2:], to.Port())
	wire.BigEndian.PutUint32(tcp[4:], 1)
	tcp[12], tcp[13] = 5<<4, 2
	wire.BigEndian.PutUint16(tcp[14:], 65535)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(tcp))
	for _, part := range [][]byte{from[:], dst[:], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(wire.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	wire.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return p
}
