package bindintercept

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func sockaddr4(port uint16, a [4]byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(append(b, a[:]...), make([]byte, 8)...)
}

func TestParseAddress(t *testing.T) {
	got, err := parseAddress(sockaddr4(8000, [4]byte{127, 0, 0, 1}), unix.AF_INET)
	if err != nil || got != netip.MustParseAddrPort("127.0.0.1:8000") {
		t.Errorf("%v, %v", got, err)
	}
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
	b = append(binary.BigEndian.AppendUint16(b, 443), 0, 0, 0, 0)
	b = append(b, netip.IPv6Unspecified().AsSlice()...)
	b = append(b, 0, 0, 0, 0)
	if got, err = parseAddress(b, unix.AF_INET6); err != nil || got != netip.MustParseAddrPort("[::]:443") {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, b[:8], b[:20], sockaddr4(1, [4]byte{})} {
		if got, err := parseAddress(bad, unix.AF_INET6); err == nil {
			t.Errorf("%v is %v", bad, got)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add(sockaddr4(1, [4]byte{1, 2, 3, 4}), unix.AF_INET)
	f.Add(make([]byte, unix.SizeofSockaddrInet6), unix.AF_INET6)
	f.Fuzz(func(t *testing.T, b []byte, domain int) {
		a, err := parseAddress(b, domain)
		switch {
		case err != nil && a.IsValid(), err == nil && !a.IsValid():
			t.Errorf("%x: %v, %v", b, a, err)
		case err == nil && a.Addr().Is4() != (domain == unix.AF_INET), err == nil && a.Addr().Is6() != (domain == unix.AF_INET6), err == nil && len(b) < unix.SizeofSockaddrInet4:
			t.Errorf("%x in domain %d: %v", b, domain, a)
		}
	})
}

// The filter, interpreted: bind and listen of this architecture stop, and what takes a name
// away but rmdir, and connect but that of the internet; nothing else does.
func TestFilter(t *testing.T) {
	arch, err := auditArch()
	if err != nil {
		t.Skip(err)
	}
	vm, err := bpf.NewVM(filter(arch))
	if err != nil {
		t.Fatal(err)
	}
	run := func(arch, nr, flags uint32) int {
		data := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, nr), arch) // a packet, to the machine
		data = append(data, make([]byte, offArg2-len(data))...)
		data = binary.BigEndian.AppendUint32(data, flags)
		verdict, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return verdict
	}
	for nr := uint32(0); nr < 500; nr++ {
		want := retAllow
		if nr == unix.SYS_BIND || nr == unix.SYS_LISTEN || nr == unix.SYS_UNLINKAT || nr == unix.SYS_CONNECT || slices.Contains(nameCalls, nr) {
			want = retUserNotif
		}
		if got := run(arch, nr, 0); got != want {
			t.Errorf("call %d: %#x, want %#x", nr, got, want)
		}
		if got := run(arch^1, nr, 0); got != retAllow {
			t.Errorf("call %d of another architecture: %#x", nr, got)
		}
	}
	for size, want := range map[uint32]int{16: retAllow, 28: retAllow, 110: retUserNotif, 3: retUserNotif} {
		if got := run(arch, unix.SYS_CONNECT, size); got != want {
			t.Errorf("connect with %d bytes: %#x", size, got)
		}
	}
	if got := run(arch, unix.SYS_UNLINKAT, unix.AT_REMOVEDIR); got != retAllow {
		t.Errorf("rmdir: %#x", got)
	}
}
