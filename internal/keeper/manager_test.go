package keeper

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A service manager that does not read holds up nobody, and hears everything when it reads
// again, in its order.
func TestDeafManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "manager")
	above, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	fill, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	fill.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	full := 0
	for ; err == nil; full++ {
		_, err = fill.Write([]byte("full"))
	}
	deaf := 0
	m := manager{socket: path, stores: true, numbers: map[string]int{}, deaf: func() { deaf++ }}
	const n = 5
	for i := range n {
		m.Store(strconv.Itoa(i), devNull(t))
	}
	if deaf != 1 {
		t.Errorf("it is said %d times", deaf)
	}
	above.SetReadDeadline(time.Now().Add(10 * time.Second)) // for failure only
	buf, oob := make([]byte, 1<<12), make([]byte, 64)
	for i := range full - 1 + n {
		size, rights, _, _, err := above.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		want := "full"
		if i >= full-1 {
			want = "FDSTORE=1\nFDPOLL=0\nFDNAME=keep-" + strconv.Itoa(i-full+1) + ".1"
		}
		if text := string(buf[:size]); text != want || rights > 0 != (want != "full") {
			t.Errorf("%q with %d bytes of rights, want %q", text, rights, want)
		}
	}
	m.flush()
	if left := m.waiting.Load(); left != 0 {
		t.Errorf("%d messages wait", left)
	}
}
