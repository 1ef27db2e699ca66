package prove

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/admin"
	"handoff/internal/api"
	"handoff/internal/logging"
)

// The test binary plays what is put to the proof:
//
//	server              another tool: it answers at ADDRESS, HUP makes it note a reload
//	handoff             a keeper: it has the socket, and a master
//	  __master          as the first argument, as handoff calls it: the control socket, and
//	    worker          two of them
//
// The real handoff is put to the proof by the integration tests.
func TestMain(m *testing.M) {
	role := os.Getenv("PROVE_TEST_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // nobody outlives the test
	runtime.LockOSThread()
	var err error
	switch role {
	case "server":
		err = playServer()
	case "handoff":
		err = playKeeper()
	case "master":
		err = playMaster()
	case "worker":
		err = playWorker()
	default:
		err = fmt.Errorf("no role %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play returns the environment of a role.
func play(role string, more ...string) []string {
	return append(os.Environ(), append(more, "PROVE_TEST_ROLE="+role)...)
}

func signals(which ...os.Signal) chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, which...)
	return c
}

func playServer() error {
	c := signals(unix.SIGTERM, unix.SIGHUP) // before it answers: HUP would end it
	l, err := net.Listen("tcp", os.Getenv("ADDRESS"))
	if err != nil {
		return err
	}
	go http.Serve(l, http.NotFoundHandler())
	for s := range c {
		fmt.Println("took", s)
		if s == unix.SIGTERM {
			return nil
		}
	}
	return nil
}

// playWorker answers on descriptor 3 with its pid.
func playWorker() error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	c := signals(unix.SIGTERM)
	go http.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, os.Getpid()) }))
	<-c
	return nil
}

// playKeeper runs one master after the other, until SIGTERM.
func playKeeper() error {
	if os.Getenv("CRASH") != "" {
		fmt.Println(`{"level":"INFO","msg":"Starting"}`)
		fmt.Println("no database")
		fmt.Println(`{"level":"ERROR","msg":"Stopped","reason":"worker 1 exited with code 1"}`)
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	stop := signals(unix.SIGTERM)
	for {
		master := exec.Command(os.Args[0], "__master")
		master.Env, master.ExtraFiles, master.Stderr = play("master", "ADDRESS="+l.Addr().String()), []*os.File{f}, os.Stderr
		if err := master.Start(); err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() { // ends with the master
			master.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-stop:
			master.Process.Kill() // and the kernel its workers
			<-ended
			return nil
		}
	}
}

// master is a service that does what it is asked at once, and no more: its workers share
// one socket.
type master struct {
	admin.Control
	listener *os.File

	mu     sync.Mutex // guards status
	status api.Status
	ended  *sync.Cond // a worker has
}

func playMaster() error {
	m := &master{listener: os.NewFile(3, "listener")}
	m.ended = sync.NewCond(&m.mu)
	m.status = api.Status{Schema: 1, Name: os.Getenv("NAME"), Generation: 1, Wanted: 1, Slots: 2, State: api.StateServing,
		Addresses: []api.AddressStatus{{Address: "/run/web.sock"}, {Address: os.Getenv("ADDRESS")}}}
	m.fill()
	l, err := admin.Listen(m.status.Name)
	if err != nil {
		return err
	}
	admin.Serve(l, m, admin.About{Events: &logging.Events{}, Log: slog.New(slog.DiscardHandler)})
	select {} // until it is killed
}

// fill starts workers of the newest generation, until each slot has one.
func (m *master) fill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.serving() < m.status.Slots {
		cmd := exec.Command(os.Args[0])
		cmd.Env = play("worker", "HANDOFF_GENERATION="+strconv.Itoa(m.status.Generation))
		cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{m.listener}, &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		m.status.Workers = append(m.status.Workers, api.WorkerStatus{Worker: len(m.status.Workers) + 1, PID: cmd.Process.Pid,
			Generation: m.status.Generation, Phase: api.PhaseServing, Steered: true})
		go func() { // ends with the worker
			cmd.Wait()
			m.gone(cmd.Process.Pid)
		}()
	}
	m.status.Ready = m.serving()
}

// serving is the number of workers that are not draining. The caller has m.mu.
func (m *master) serving() (n int) {
	for _, w := range m.status.Workers {
		if w.Phase == api.PhaseServing {
			n++
		}
	}
	return n
}

func (m *master) gone(pid int) {
	m.mu.Lock()
	m.status.Workers = slices.DeleteFunc(m.status.Workers, func(w api.WorkerStatus) bool { return w.PID == pid })
	m.mu.Unlock()
	m.ended.Broadcast()
	m.fill()
}

// drain ends workers, and waits until they have ended; with HANGS it does neither. The
// caller has m.mu.
func (m *master) drain(workers []api.WorkerStatus) {
	hangs := os.Getenv("HANGS") != ""
	for i := range workers {
		workers[i].Phase, workers[i].Steered = api.PhaseDraining, false
		if !hangs {
			unix.Kill(workers[i].PID, unix.SIGTERM)
		}
	}
	for !hangs && m.serving() < len(m.status.Workers) {
		m.ended.Wait()
	}
}

func (m *master) Status(context.Context) (api.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Workers = slices.Clone(s.Workers)
	return s, nil
}

// Reload starts a generation and ends the one before; with STALE it only says so. While
// there is a file BROKEN it fails.
func (m *master) Reload(context.Context) (int, error) {
	m.mu.Lock()
	defer m.fill()
	defer m.mu.Unlock()
	m.status.Wanted++
	m.status.Reload = &api.ReloadStatus{Generation: m.status.Wanted, Outcome: api.OutcomeServed}
	if _, err := os.Stat(os.Getenv("BROKEN")); err == nil {
		m.status.Reload.Outcome, m.status.Reload.Reason = api.OutcomeFailed, "exited with code 1"
		return m.status.Wanted, nil
	}
	m.status.Generation = m.status.Wanted
	if os.Getenv("STALE") == "" {
		m.drain(m.status.Workers)
	}
	return m.status.Wanted, nil
}

func (m *master) Scale(_ context.Context, by int, _ bool) (int, error) {
	m.mu.Lock()
	defer m.fill()
	defer m.mu.Unlock()
	m.status.Slots += by
	if m.status.Slots < len(m.status.Workers) {
		m.drain(m.status.Workers[m.status.Slots:])
	}
	return m.status.Slots, nil
}

func (m *master) Upgrade(context.Context) error { return nil }
