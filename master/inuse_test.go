package master

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"handoff/internal/api"
)

// Somebody else has the address: a start is given up at once, and the reason says who;
// whether the program was refused the address, or has bound it itself.
func TestAddressInUse(t *testing.T) {
	for _, c := range []struct {
		role string
		hold bool
	}{{"bind", true}, {"bind", false}, {"activation-and-bind", true}} {
		t.Run(fmt.Sprint(c.role, c.hold), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			contract := BindContract
			if c.role != "bind" {
				contract = ActivationContract
			}
			cfg := base(c.role, contract)
			cfg.Fleet.Slots, cfg.Fleet.MaxFailures = 1, 3
			cfg.Holds = func(netip.AddrPort) bool { return c.hold }
			cfg.Command.Env = append(cfg.Command.Env, "ADDRESS="+l.Addr().String())
			w := run(t, cfg)
			if code := w.ends(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			w.await("cluster.failed", "address already in use: master.test", fmt.Sprintf("(pid %d) listens there", os.Getpid()))
			if n := w.count("worker.crashed"); n != 1 {
				t.Errorf("%d starts have failed, want 1", n)
			}
		})
	}
}

// So is a reload, with the service that has the address, and how to stop it.
func TestAddressInUseAtReload(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HANDOFF_RUNTIME_DIR", dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "api.sock.1"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	cfg := base("activation-and-bind", ActivationContract)
	cfg.Fleet.Slots, cfg.Fleet.MaxFailures = 1, 3
	cfg.Command.Env = append(cfg.Command.Env, "FROM=2", "ADDRESS="+l.Addr().String())
	w := activated(t, cfg)
	if _, err := w.control.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await("cluster.failed", "generation=2", "serving=1", "the handoff service api listens there (`handoff stop api` stops it)")
	if r := w.status().Reload; r == nil || r.Outcome != api.OutcomeFailed || !strings.Contains(r.Reason, "`handoff stop api`") {
		t.Errorf("reload %+v", r)
	}
	if n := w.count("worker.crashed"); n != 1 {
		t.Errorf("%d starts have failed, want 1", n)
	}
}
