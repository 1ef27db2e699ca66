package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/keeper/fdstore"
	"handoff/master/fleet"
	"handoff/master/listeners"
)

// The test binary is a worker, too: it listens where it is told, says so, and ends with
// its stdin.
func TestMain(m *testing.M) {
	if os.Getenv("SNAPSHOT_TEST_WORKER") == "" {
		os.Exit(m.Run())
	}
	for _, at := range os.Args[1:] {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}}
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp", at)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(l.Addr())
	}
	io.Copy(io.Discard, os.Stdin)
}

// startOrphan starts a worker that nobody looks after, and returns where it listens.
func startOrphan(t *testing.T, service string, id, slot, gen int, notify string, listen ...string) (pid int, at []netip.AddrPort) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, listen...)
	c.Env = []string{"SNAPSHOT_TEST_WORKER=1", ServiceVariable + "=" + service, "HANDOFF_WORKER=" + strconv.Itoa(id),
		"WORKER_ID=" + strconv.Itoa(slot), "HANDOFF_GENERATION=" + strconv.Itoa(gen), "NOTIFY_SOCKET=" + notify}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	lines := bufio.NewScanner(out)
	for range listen {
		if !lines.Scan() {
			t.Fatal("the worker does not listen")
		}
		a, err := netip.ParseAddrPort(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		at = append(at, a)
	}
	return c.Process.Pid, at
}

func search(t *testing.T, service string) Search {
	return Search{Service: service, Slots: 2, Balance: "even", Holds: func(a netip.AddrPort) bool { return a.Port() != 0 },
		Environ: func(env []string) (of []string) {
			for _, kv := range env {
				if !strings.HasPrefix(kv, "HANDOFF_") {
					of = append(of, kv)
				}
			}
			return of
		},
		Warn: func(pid int, err error) { t.Errorf("worker %d: %v", pid, err) }}
}

func closeDescriptors(d Descriptors) {
	for _, fd := range d {
		unix.Close(fd)
	}
}

func TestFind(t *testing.T) {
	service := t.Name() + "@" + t.TempDir()
	const nobody = "@handoff/test/nobody"
	one, at := startOrphan(t, service, 7, 0, 3, nobody, "127.0.0.1:0")
	two, _ := startOrphan(t, service, 8, 1, 3, nobody, at[0].String())
	old, _ := startOrphan(t, service, 4, 1, 2, nobody, at[0].String()) // of the generation before
	startOrphan(t, "another"+service, 9, 0, 3, nobody, "127.0.0.1:0")

	s := search(t, service)
	s.Listen = []listeners.Listen{{Addr: at[0]}, {Path: "/no/such"}}
	r, d, found := s.Find()
	if !found {
		t.Fatal("none found")
	}
	defer closeDescriptors(d)
	pids := map[int]int{}
	phases := map[int]fleet.Phase{}
	for i, w := range r.Workers {
		pids[int(w.ID)] = w.PID
		phases[int(w.ID)] = r.Fleet.Workers[i].Phase
	}
	if want := map[int]int{7: one, 8: two, 4: old}; !reflect.DeepEqual(pids, want) {
		t.Errorf("found %v, want %v", pids, want)
	}
	if want := map[int]fleet.Phase{7: fleet.Serving, 8: fleet.Serving, 4: fleet.Quieting}; !reflect.DeepEqual(phases, want) {
		t.Errorf("phases %v, want %v: the older generation leaves", phases, want)
	}
	if r.Fleet.Live != 3 || r.Fleet.LastID != 8 || !r.Reload || r.Keeper != 0 || !reflect.DeepEqual(r.Targets, []listeners.Worker{7, 8}) {
		t.Errorf("record %+v", r)
	}
	if len(r.Addresses) != 1 || r.Addresses[0].Bound != at[0] || len(r.Addresses[0].Sockets) != 3 || len(r.Addresses[0].Leases) != 3 {
		t.Fatalf("addresses %+v", r.Addresses)
	}
	if !r.Addresses[0].Preopened || !reflect.DeepEqual(r.Preopened, []string{"1", ""}) {
		t.Errorf("preopened %v", r.Preopened)
	}
	for _, socket := range r.Addresses[0].Sockets {
		if fd := d.Take(listeners.SocketName(socket.Inode)); fd < 0 {
			t.Errorf("socket %d is not there", socket.Inode)
		} else {
			unix.Close(fd)
		}
	}
	for id, pid := range pids {
		p, err := d.Pidfd(pid, fdstore.WorkerName(id, fdstore.PID))
		if err != nil || p == nil || p.Dead() {
			t.Fatalf("the pidfd of %d: %v, %v", id, p, err)
		}
		p.Close()
	}
	if len(d) != 0 {
		t.Errorf("left over: %v", d)
	}
	g := r.Generations[0]
	if env := Strings(g.Env); len(g.Args) != 2 || len(env) == 0 || strings.Contains(strings.Join(env, "\n"), "HANDOFF_") {
		t.Errorf("generation %+v", g)
	}
}

// A worker whose notify socket somebody has is looked after: it is not taken.
func TestFindLeavesOthersAlone(t *testing.T) {
	service := t.Name() + "@" + t.TempDir()
	name := "@handoff/test/" + strconv.Itoa(os.Getpid())
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	startOrphan(t, service, 1, 0, 1, name, "127.0.0.1:0")
	if r, d, found := search(t, service).Find(); found {
		closeDescriptors(d)
		t.Errorf("taken: %+v", r.Workers)
	}
	// Numbers that no worker has are not believed.
	startOrphan(t, service+"2", 0, 0, 1, "@handoff/test/nobody", "127.0.0.1:0")
	startOrphan(t, service+"2", 1, 1<<20, 1, "@handoff/test/nobody", "127.0.0.1:0")
	if r, d, found := search(t, service+"2").Find(); found {
		closeDescriptors(d)
		t.Errorf("taken: %+v", r.Workers)
	}
}

func TestDescriptors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	d := Descriptors{"pipe": fd}
	f := d.File("pipe")
	if f == nil || d.File("pipe") != nil || d.Take("pipe") != -1 {
		t.Fatal("what is taken is the taker's, once")
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	f.Close()
	if p, err := d.Pidfd(1, "pipe"); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := r.Read(make([]byte, 2)); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 2)); !errors.Is(err, io.EOF) {
		t.Errorf("somebody still has the other end: %v", err)
	}
}
