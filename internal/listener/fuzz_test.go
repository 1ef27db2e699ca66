package listener

import (
	"strconv"
	"strings"
	"testing"
)

// A program's last lines: a port that is found stands in them.
func FuzzComplaint(f *testing.F) {
	f.Add("Error: listen EADDRINUSE: address already in use :::3000\n  port: 3000")
	f.Add("nginx: [emerg] bind() to 0.0.0.0:99999 failed (98: Address already in use)")
	f.Add("12:30:01 Port: 0 address in use 'x', 80")
	f.Fuzz(func(t *testing.T, text string) {
		port, ok := Complaint(strings.Split(text, "\n"))
		if port != 0 && (!ok || !strings.Contains(text, strconv.Itoa(int(port)))) {
			t.Errorf("%q: %d, %v", text, port, ok)
		}
	})
}

// The path of a socket, which anybody may choose, goes into a command for an operator's
// shell.
func FuzzServiceOf(f *testing.F) {
	for _, s := range []string{"/run/handoff/web.sock.12", "/tmp/x y/web.sock.1", "/tmp/$(reboot)/web.sock.1", "/a/-x.sock.1", "/a/b.sock", "/a/../web.sock.1\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		dir, service := serviceOf(path)
		if service == "" {
			return
		}
		for _, r := range dir + service {
			if !strings.ContainsRune("/._-", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
				t.Errorf("%q: %q, %q", path, dir, service)
			}
		}
		if strings.HasPrefix(service, "-") {
			t.Errorf("%q: %q is an option", path, service)
		}
	})
}
