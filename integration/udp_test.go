package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// UDP servers as they are: each query is sent once, and answered, over reloads and killed
// masters.
func TestDatagramServers(t *testing.T) {
	t.Run("python", func(t *testing.T) {
		// At SIGTERM it ends at once, whatever waits in its socket.
		udpServer(t, echoQuery, python(t, `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", port))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    b, at = s.recvfrom(2000)
    s.sendto(b, at)
`, options{flags: []string{"-n", "2"}}))
	})
	t.Run("node", func(t *testing.T) {
		app := filepath.Join(t.TempDir(), "server.js")
		if err := os.WriteFile(app, []byte(`
const s = require('dgram').createSocket('udp4')
s.on('message', (b, from) => s.send(b, from.port, from.address))
s.bind(Number(process.env.PORT), '127.0.0.1')
process.on('SIGTERM', () => s.close())
`), 0o644); err != nil {
			t.Fatal(err)
		}
		udpServer(t, echoQuery, options{app: []string{"node", app}, flags: []string{"-n", "2", "--contract", "bind"}})
	})
	for name, args := range map[string][]string{
		"dnsmasq": {"-k", "-C", "/dev/null", "--pid-file=", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces", "--address=/host.test/10.1.2.3", "--user=", "--port=%s"},
		"unbound": {"-d", "-c", "%s"},
	} {
		t.Run(name, func(t *testing.T) {
			if !*long {
				t.Skip("-long")
			}
			if _, err := exec.LookPath(name); err != nil {
				t.Skip("needs " + name)
			}
			port := freePort(t)
			last := &args[len(args)-1]
			if *last = fmt.Sprintf(*last, port); name == "unbound" {
				*last = filepath.Join(t.TempDir(), "conf")
				os.WriteFile(*last, fmt.Appendf(nil, "server:\n do-daemonize: no\n interface: 127.0.0.1@%s\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n num-threads: 2\n module-config: \"iterator\"\n local-data: \"host.test. A 10.1.2.3\"\nremote-control:\n control-enable: no\n", port), 0o644)
			}
			udpServer(t, dnsQuery, options{app: append([]string{name}, args...), env: []string{"PORT=" + port}, flags: []string{"-n", "2"}})
		})
	}
}

func echoQuery(n uint16) []byte { return fmt.Appendf(nil, "%c%c query", n>>8, n&255) }

func dnsQuery(n uint16) []byte {
	return append([]byte{byte(n >> 8), byte(n), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x04host\x04test\x00\x00\x01\x00\x01"...)
}

// ask has eight clients ask until stop is called, each query once; it returns how many there
// were, and what has failed.
func ask(t *testing.T, at string, query func(uint16) []byte) (stop func() (asked int64, failed []error)) {
	var asked atomic.Int64
	var clients sync.WaitGroup
	failures, ending := make(chan error, 1<<12), make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for {
				c, err := net.Dial("udp", at)
				if err != nil {
					failures <- err
					return
				}
				for n := range uint16(20) {
					select {
					case <-ending:
						c.Close()
						return
					default:
					}
					b := query(n)
					c.SetDeadline(time.Now().Add(unanswered))
					asked.Add(1)
					if _, err = c.Write(b); err == nil {
						_, err = c.Read(b)
					}
					if err != nil || b[1] != byte(n) {
						failures <- fmt.Errorf("query %d: %w", n, err)
						break
					}
				}
				c.Close()
			}
		})
	}
	return func() (int64, []error) {
		close(ending)
		clients.Wait()
		close(failures)
		var failed []error
		for err := range failures {
			failed = append(failed, err)
		}
		return asked.Load(), failed
	}
}

// unanswered is when a query counts as lost.
const unanswered = 10 * time.Second

func udpServer(t *testing.T, query func(uint16) []byte, o options) {
	if len(o.env) == 0 {
		o.env = []string{"PORT=" + freePort(t)}
	}
	at := "127.0.0.1:" + o.env[0][len("PORT="):]
	w := start(t, o)
	stop := ask(t, at, query)
	for i := range times(20, 2) {
		w.reload()
		w.retired(2)
		if i%5 == 1 {
			w.killMaster()
		}
	}
	asked, failed := stop()
	for _, err := range failed {
		t.Error(err)
	}
	t.Logf("%d asked, %d not answered", asked, len(failed))
	w.stop()
}
