package master

import (
	"net"
	"testing"
)

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A program that listens without asking is never ready, and is told what helps.
func TestListensByItself(t *testing.T) {
	cfg := base("bind-itself", NodeContract)
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	cfg.Fleet.Slots = 1
	cfg.Command.Env = append(cfg.Command.Env, "ADDRESS="+address)
	w := run(t, cfg)
	w.await("worker.incomplete", "it listens on port "+port+" on a socket that handoff does not hold", "use --contract bind")
	w.control.Stop(t.Context(), true)
	w.ends()
}

// So is the second worker of one.
func TestAddressInUseByAnotherWorker(t *testing.T) {
	cfg := base("bind-itself", NodeContract)
	cfg.Command.Env = append(cfg.Command.Env, "ADDRESS="+freeAddress(t))
	w := run(t, cfg)
	w.await("cluster.failed", "address already in use: master.test", "listens there: it is the worker of slot", "use --contract bind")
	if code := w.ends(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
