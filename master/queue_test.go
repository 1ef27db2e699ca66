package master

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
	conns "handoff/internal/takeover"
)

// bootHeld boots when the fifo HELD is opened for writing, if there is one.
func bootHeld() int {
	os.ReadFile(os.Getenv("HELD"))
	if at := os.Getenv("ADDRESS"); at != "" {
		return serve(net.Listen("tcp", at))
	}
	return serve(inherited(3))
}

func stopped(pid int) bool {
	s, err := linux.ReadStat(pid)
	return err == nil && s.State == 'T'
}

// What waits for a worker that has died is answered by the others, before its successor has
// booted: that is held here until all are answered.
func TestDeadWorkersQueue(t *testing.T) {
	for _, contract := range []Contract{ActivationContract, BindContract} {
		t.Run(string(contract), func(t *testing.T) {
			held := filepath.Join(t.TempDir(), "held")
			cfg := base("boot-held", contract)
			cfg.KeepConnections = conns.Local
			cfg.Command.Env = append(cfg.Command.Env, "HELD="+held)
			var w *world
			if contract == BindContract {
				at := "127.0.0.1:" + freePort(t)
				cfg.Command.Env = append(cfg.Command.Env, "ADDRESS="+at)
				w = run(t, cfg)
				w.await("cluster.started", at)
				w.at.UnmarshalText([]byte(at))
			} else {
				w = activated(t, cfg)
			}
			// With even a worker that takes its time gets no connections for a while.
			if err := w.control.SetBalance(t.Context(), "sticky"); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(held, 0o600); err != nil {
				t.Fatal(err)
			}
			slot, _, pid := w.ask("who")
			unix.Kill(pid, unix.SIGSTOP)
			for !stopped(pid) { // a signal takes a while
				runtime.Gosched()
			}
			clients := make([]net.Conn, 40)
			for i := range clients {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))}}
				c, err := d.Dial("tcp", w.at.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(testTimeout))
				fmt.Fprintln(c, "who")
				clients[i] = c
			}
			unix.Kill(pid, unix.SIGKILL)
			w.await("worker.crashed", fmt.Sprint("pid=", pid))
			for _, c := range clients {
				var by, gen, pid int
				if _, err := fmt.Fscan(c, &by, &gen, &pid); err != nil || by == slot {
					t.Fatalf("answered by slot %d, %v", by, err)
				}
			}
			w.await("address.rescued")
			opened, err := os.OpenFile(held, os.O_WRONLY, 0) // when somebody reads: the successor
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(held)
			opened.Close()
			w.await("worker.ready", fmt.Sprint("slot=", slot), "worker=3")
		})
	}
}
