package hostile

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
)

// badDay is a service that has a bad one.
type badDay struct {
	*service
	t   *testing.T
	pid int // of the keeper
}

// calm is the server of a language without an attacker, in a folder for everybody.
func calm(t *testing.T, node bool) []string {
	t.Helper()
	name, text := "server.py", strings.Replace(pythonServer, `os.environ["HANDOFF_GENERATION"] == "1"`, "False", 1)
	if node {
		name, text = "server.js", strings.Replace(nodeServer, "process.env.HANDOFF_GENERATION !== '1'", "true", 1)
	}
	path := filepath.Join(folder(t), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if node {
		return []string{path}
	}
	return []string{python3(), path}
}

// startDay starts a service, of root's with workers of nobody's where this is root.
func startDay(t *testing.T, node bool, o options) *badDay {
	t.Helper()
	o.setup, o.program = setup{node: node, drop: root()}, calm(t, node)
	s := start(t, o)
	return &badDay{s, t, s.cmd.Process.Pid}
}

// cli runs a command of handoff's for the service.
func (d *badDay) cli(args ...string) (string, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = d.cmd.Env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is cli, which has to succeed.
func (d *badDay) must(args ...string) string {
	d.t.Helper()
	out, err := d.cli(args...)
	if err != nil {
		d.t.Fatalf("handoff %v: %v\n%s", args, err, out)
	}
	return out
}

func (d *badDay) status() (s api.Status) {
	d.t.Helper()
	out, err := d.cli("status", "--json") // its exit code may say that a worker stalls: the machine is busy
	if json.Unmarshal([]byte(out), &s) != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// current is the pid of the master; it waits for one.
func (d *badDay) current() int {
	d.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); {
		for _, pid := range children(d.pid) {
			if b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); strings.Contains(string(b), "\x00__master\x00") {
				return pid
			}
		}
	}
	d.t.Fatal("there is no master")
	return 0
}

// killMaster kills it, and waits until the next one has adopted the workers.
func (d *badDay) killMaster() {
	d.t.Helper()
	n := len(d.said("master.adopted"))
	unix.Kill(d.current(), unix.SIGKILL)
	d.await("master.adopted", n+1)
}

// killKeeper kills it, and waits for the next one's master.
func (d *badDay) killKeeper() {
	d.t.Helper()
	n := len(d.said("master.adopted"))
	unix.Kill(d.pid, unix.SIGKILL)
	d.await("master.adopted", n+1)
	d.pid = d.status().PID
}

// reload asks for one, and waits until its generation serves.
func (d *badDay) reload() {
	d.t.Helper()
	n := len(d.said("cluster.reloaded"))
	unix.Kill(d.pid, unix.SIGUSR2)
	d.await("cluster.reloaded", n+1)
}

// awaitStatus waits until the status is as wanted.
func (d *badDay) awaitStatus(what string, ok func(api.Status) bool) {
	d.t.Helper()
	var s api.Status
	for late := time.Now().Add(3 * patience); time.Now().Before(late); <-time.After(50 * time.Millisecond) { // a storm of reloads is many starts
		if s = d.status(); ok(s) {
			return
		}
	}
	d.t.Fatalf("the service is not %s: %+v", what, s)
}

// atRest waits until one generation serves every slot, and nothing else is left.
func (d *badDay) atRest() {
	d.t.Helper()
	d.awaitStatus("at rest", func(s api.Status) bool {
		served := 0
		for _, w := range s.Workers {
			if w.Steered && w.Generation == s.Generation {
				served++
			}
		}
		return s.State == api.StateServing && s.Generation == s.Wanted && served == s.Slots && len(s.Workers) == s.Slots
	})
}

// over ends the day: a reload works under load, the load is counted, the service is whole.
func (d *badDay) over(c *clients, r *report) {
	d.t.Helper()
	d.reload()
	c.more(d.t, 50)
	c.count(d.t, r, false)
	d.whole()
}

// whole ends the service, which must be whole: it reloads, comes to rest, and stops.
func (d *badDay) whole() {
	d.t.Helper()
	d.reload()
	d.atRest()
	d.must("stop")
	if !d.Until(patience, func() bool { return d.Ended }) {
		d.t.Fatal("it does not end")
	}
}

// again starts handoff as it was started, when it has been killed.
func (d *badDay) again() {
	d.t.Helper()
	d.spawn(d.cmd.Args[0], d.cmd.Args[1:]...)
	d.pid = d.cmd.Process.Pid
}

// spawn starts a command in the place of the one before, if there was one, and reads its
// log from the beginning.
func (s *service) spawn(name string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), "HOST=127.0.0.1", "PORT="+s.addr[strings.LastIndex(s.addr, ":")+1:]), &syscall.SysProcAttr{Setpgid: true}
	if s.cmd != nil {
		s.cmd.Wait()
		if !s.Until(patience, func() bool { return s.Ended }) {
			s.t.Fatal("what was killed goes on writing")
		}
		cmd.Dir, cmd.Env, cmd.SysProcAttr = s.cmd.Dir, s.cmd.Env, s.cmd.SysProcAttr
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = end, end
	err = cmd.Start()
	end.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	s.Mu.Lock()
	s.cmd, s.Lines, s.Ended = cmd, nil, false
	s.Mu.Unlock()
	go s.Read(bufio.NewReaderSize(pipe, 1<<20)) // ends with what it has started
}

// root reports whether workers are nobody's, under a handoff of root's.
func root() bool { return os.Geteuid() == 0 }

// languages calls f with Python, and with -long with Node, too.
func languages(t *testing.T, f func(t *testing.T, node bool)) {
	for _, node := range []bool{false, true} {
		if !node || *long {
			t.Run(map[bool]string{false: "python", true: "node"}[node], func(t *testing.T) { f(t, node) })
		}
	}
}
