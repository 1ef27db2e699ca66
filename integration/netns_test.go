package integration

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A program in a network namespace of its own serves there, as it does without handoff: its
// address is not open outside, and this is said.
func TestOtherNamespace(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs a network namespace of its own: root")
	}
	if out, err := exec.Command("unshare", "-n", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("no network namespace here: %s", out)
	}
	port := freePort(t)
	w := start(t, options{flags: []string{"-n", "1"}, env: []string{"PORT=" + port},
		app: []string{"unshare", "-n", "sh", "-c", "ip link set lo up && exec " + goProgram("goserver")}})
	if said := w.all("address.own"); len(said) != 1 || !strings.Contains(said[0].Msg, "network namespace") || said[0].Address != "127.0.0.1:"+port {
		t.Errorf("%+v", said)
	}
	for range 2 {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, testTimeout); err == nil {
			c.Close()
			t.Error("it is open outside")
		}
		serving := w.serving()
		if got := getInside(t, serving[len(serving)-1], port); !strings.HasSuffix(got, "ok\n") {
			t.Errorf("inside: %q", got)
		}
		w.reload()
		w.retired(1)
	}
	w.stop()
}

// getInside asks in the network namespace of a process.
func getInside(t *testing.T, pid int, port string) string {
	t.Helper()
	type answer struct {
		text string
		err  error
	}
	to := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		text, err := func() (string, error) {
			ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
			if err != nil {
				return "", err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return "", err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			defer unix.Close(fd)
			n, _ := strconv.Atoi(port)
			limit := unix.NsecToTimeval(testTimeout.Nanoseconds())
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				return "", err
			}
			if _, err := unix.Write(fd, []byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
				return "", err
			}
			var text []byte
			for b := make([]byte, 4096); ; {
				n, err := unix.Read(fd, b)
				if n <= 0 {
					return string(text), err
				}
				text = append(text, b[:n]...)
			}
		}()
		to <- answer{text, err}
	}()
	select {
	case a := <-to:
		if a.err != nil {
			t.Error(a.err)
		}
		return a.text
	case <-time.After(testTimeout):
		t.Fatal("no answer inside")
		return ""
	}
}
