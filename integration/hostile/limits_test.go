package hostile

import (
	"bufio"
	native "encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"handoff/internal/load"
	"handoff/internal/logtest"
)

func limitsRows() []row {
	return append(concat(fewRows(), fullRows(), killedRows(), stoppedRows(), placeRows(), profileRows()), unreadable())
}

func concat(all ...[]day) (rows []row) {
	for _, days := range all {
		for _, d := range days {
			rows = append(rows, d.row())
		}
	}
	return rows
}

// day is a row of something that happens to a service under load, after which it must be
// whole: it reloads, and each slot is served.
type day struct {
	name, tries  string
	short, alone bool
	root         bool    // the test must be root's
	mixed        bool    // nothing can be steered: generations answer in turns
	sticky       bool    // what clients of the first slot lose in the deed is its own
	setups       []setup // of none: as one user
	options      func(t *testing.T, u setup) options
	deed         func(t *testing.T, s *service, c *clients)
	logs         []string // events that an operator sees, the best first
	limit        string
}

func (d day) row() row {
	return row{group: "day", name: d.name, tries: d.tries, short: d.short, alone: d.alone, run: func(t *testing.T, r *report) {
		if d.root && os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		if d.limit != "" {
			r.documented(d.limit)
		}
		all := d.setups
		if all == nil {
			all = oneUser
		}
		setups(t, all, func(t *testing.T, u setup) { d.run(t, r, u) })
	}}
}

var (
	oneUser = []setup{{node: true}, {node: false}}
	ofRoot  = []setup{{node: true, drop: true}, {node: false, drop: true}}
)

func (d day) run(t *testing.T, r *report, u setup) {
	var o options
	if d.options != nil {
		o = d.options(t, u)
	}
	o.setup = u
	if d.sticky {
		o.flags = append(o.flags, "--balance", "sticky")
	}
	s := launch(t, o)
	if path := s.env("LOGFILE"); path != "" {
		s.follow(path)
	}
	s.await("cluster.started")
	if o.attack == "" {
		s.mark("go") // what would attack ends
	}
	c := s.clients()
	c.more(t, 60)
	c.Begin("attack")
	c.more(t, 20) // and what began before has ended
	d.deed(t, s, c)
	c.Begin("after")
	s.reload()
	c.more(t, 100)
	if d.mixed {
		c.countMixed(t, r)
	} else {
		c.count(t, r, d.sticky)
	}
	r.says(s.says(d.logs...))
	for _, l := range s.Other { // the keeper's
		if strings.HasPrefix(l, "handoff: ") {
			r.says(l)
		}
	}
	s.stop()
}

// countMixed is count where an older generation may answer after a newer one.
func (c *clients) countMixed(t *testing.T, r *report) {
	t.Helper()
	c.Stop()
	for _, p := range c.Parts() {
		got := p.Result()
		lost := got.Lost() - got.Failed[load.Order]
		r.count(got.Requests, lost, 0)
		if lost > 0 {
			t.Logf("%s: %v", p.Name, got)
		}
	}
}

// shell is a command that runs a script, and then becomes handoff.
func shell(script string) []string { return []string{"sh", "-ec", script + `; exec "$0" "$@"`} }

// mounts is shell with mounts of its own.
func mounts(script string) []string {
	return append([]string{"unshare", "-m", "--propagation", "private"}, shell(script)...)
}

// kill kills the master, and waits for the next one.
func (s *service) kill() {
	s.t.Helper()
	n := len(s.said("master.adopted"))
	unix.Kill(s.master(), unix.SIGKILL)
	s.await("master.adopted", n+1)
}

// happens waits until there are more than n lines of any of the events.
func (s *service) happens(n int, events ...string) {
	s.t.Helper()
	count := func() (all int) {
		for _, e := range events {
			all += len(logtest.Named(s.Lines, e))
		}
		return all
	}
	if !s.Until(patience, func() bool { return count() > n }) {
		s.t.Fatalf("no %v within %v", events, patience)
	}
}

// tries has the service reload, and returns whether that succeeded.
func (s *service) triesToReload() bool {
	s.t.Helper()
	before := len(s.said("cluster.reloaded"))
	n := before + len(s.said("cluster.failed"))
	s.cmd.Process.Signal(unix.SIGUSR2)
	s.happens(n, "cluster.reloaded", "cluster.failed")
	return len(s.said("cluster.reloaded")) > before
}

// Few descriptors, no processes.

func fewRows() []day {
	few := func(limit int) day {
		return day{name: fmt.Sprintf("nofile-%d", limit), short: limit == 64, tries: fmt.Sprintf("`ulimit -n %d`, four workers: a reload, the master is killed in it, fewer workers", limit),
			setups: []setup{{node: false}, {node: true}},
			options: func(t *testing.T, u setup) options {
				return options{flags: []string{"-n", "4", "--max-failures", "1"}, behind: shell("ulimit -n " + strconv.Itoa(limit))}
			},
			deed: func(t *testing.T, s *service, c *clients) {
				s.triesToReload()
				s.kill()
				c.more(t, 100)
				n := len(s.said("worker.shutdown"))
				s.cmd.Process.Signal(unix.SIGTTOU)
				s.happens(n, "worker.shutdown")
				s.cmd.Process.Signal(unix.SIGTTOU)
				s.happens(n+1, "worker.shutdown")
			}, logs: []string{"cluster.failed", "worker.crashed", "worker.lost", "address.lost"}}
	}
	return []day{few(64), few(256), {
		name: "no-fork", tries: "no process and no thread can be made any more (pids cgroup): a reload fails, the master is killed and cannot be replaced; then they can",
		root: true, short: true,
		options: func(t *testing.T, u setup) options {
			o := options{flags: []string{"--max-failures", "1"}, behind: shell("echo $$ >" + cgroup(t, "pids") + "/cgroup.procs")}
			if !u.node { // without a thread for each connection
				o.program = pythonProgram(t, strings.NewReplacer("ThreadingHTTPServer", "HTTPServer", "HTTP/1.1", "HTTP/1.0").Replace(pythonServer))
			}
			return o
		},
		deed: func(t *testing.T, s *service, c *clients) {
			dir, master := cgroupOf(s.cmd.Process.Pid, "pids"), s.master()
			limit := func(to string) {
				if err := os.WriteFile(dir+"/pids.max", []byte(to), 0); err != nil {
					t.Fatal(err)
				}
			}
			limit("1")
			if s.triesToReload() {
				t.Error("a reload without a process")
			}
			c.more(t, 100)
			for range 6 {
				s.asked(12)
			}
			if s.master() != master {
				t.Error("the master has ended for want of a thread")
			}
			unix.Kill(master, unix.SIGKILL)
			s.awaitOther("cannot restart the master")
			c.more(t, 100)
			limit("max")
			s.await("master.adopted")
		}, logs: []string{"cluster.failed", "worker.crashed"},
	}}
}

// pythonProgram is a program of that text.
func pythonProgram(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(folder(t), "server.py")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{python3(), path}
}

// awaitOther waits for a line that is not the log's.
func (s *service) awaitOther(part string) {
	s.t.Helper()
	if !s.Until(patience, func() bool {
		return slices.ContainsFunc(s.Other, func(l string) bool { return strings.Contains(l, part) })
	}) {
		s.t.Fatalf("no %q within %v", part, patience)
	}
}

// asked asks for the status so many times at once: the master reads of each worker.
func (s *service) asked(n int) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			cmd := exec.Command(binary, "status", "--json")
			cmd.Env = append(os.Environ(), "HANDOFF_RUNTIME_DIR="+s.env("HANDOFF_RUNTIME_DIR"))
			cmd.SysProcAttr = s.cmd.SysProcAttr // as the same user
			cmd.Run()
		})
	}
	all.Wait()
}

// cgroup makes a control group of version 1 that a user's process may join; it is removed
// with the test.
func cgroup(t *testing.T, controller string) string {
	t.Helper()
	dir := fmt.Sprintf("/sys/fs/cgroup/%s/handoff-hostile-%d-%s", controller, os.Getpid(), strings.ReplaceAll(filepath.Base(t.Name()), "/", "-")+strconv.Itoa(int(nextPort.Add(1))))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control groups of version 1 that can be made here: %v", err)
	}
	t.Cleanup(func() {
		for range 200 { // what has just been killed is still leaving
			if unix.Rmdir(dir) == nil {
				return
			}
			exec.Command("true").Run()
		}
		t.Errorf("cannot remove %s", dir)
	})
	os.Chown(dir+"/cgroup.procs", nobody, nobody)
	return dir
}

// cgroupOf is the folder of a process's control group.
func cgroupOf(pid int, controller string) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if _, path, ok := strings.Cut(in.Text(), ":"+controller+":"); ok {
			return "/sys/fs/cgroup/" + controller + path
		}
	}
	return ""
}

// Full disks. The test fills a file system that only the service sees, by the service's own
// root folder.

// small is a command that mounts a small file system at DIR/small, and becomes handoff.
func small(dir string) []string {
	return mounts("mkdir -p " + dir + "; mount -t tmpfs -o size=64k,mode=1777 small " + dir)
}

// fill fills the file system at dir of the service, and returns what makes room again.
func (s *service) fill(dir string) (undo func()) {
	s.t.Helper()
	path := fmt.Sprintf("/proc/%d/root%s/filler", s.cmd.Process.Pid, dir)
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	return func() { os.Remove(path) }
}

// follow reads a log file of the service's as its stderr is read.
func (s *service) follow(path string) {
	s.t.Helper()
	tail := exec.Command("tail", "-c", "+1", "-F", fmt.Sprintf("/proc/%d/root%s", s.cmd.Process.Pid, path))
	out, err := tail.StdoutPipe()
	if err == nil {
		err = tail.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { // ends with tail
		for in := bufio.NewScanner(out); in.Scan(); {
			s.Add(in.Text())
		}
	}()
	s.t.Cleanup(func() { tail.Process.Kill(); tail.Wait() })
}

func fullRows() []day {
	return []day{{
		name: "full-output", root: true, setups: ofRoot,
		tries: "the disk of `--capture files`, of the state and of the runtime folder is full: a reload, the master is killed; then there is room",
		options: func(t *testing.T, u setup) options {
			dir := folder(t) + "/small"
			return options{flags: []string{"--capture", "files", "--capture-dir", dir + "/logs"}, behind: small(dir),
				attack: "\nwhile True: print('x' * 100, flush=True); time.sleep(.01)\n",
				env:    []string{"HANDOFF_STATE_DIR=" + dir + "/state", "HANDOFF_RUNTIME_DIR=" + dir + "/run", "SMALL=" + dir}}
		},
		deed: func(t *testing.T, s *service, c *clients) {
			undo := s.fill(s.env("SMALL"))
			s.mark("go")
			s.await("output.lost")
			s.triesToReload()
			c.more(t, 100)
			s.kill()
			c.more(t, 100)
			undo()
		}, logs: []string{"output.lost", "record.failed", "preload.missing"},
	}, {
		name: "full-log", root: true, setups: ofRoot,
		tries: "the disk of `--log-file` is full: a reload, the master is killed; then there is room",
		options: func(t *testing.T, u setup) options {
			dir := folder(t) + "/small"
			return options{flags: []string{"--log-file", dir + "/log"}, behind: small(dir), env: []string{"SMALL=" + dir, "LOGFILE=" + dir + "/log"}}
		},
		deed: func(t *testing.T, s *service, c *clients) {
			undo := s.fill(s.env("SMALL"))
			for said := false; !said; { // the file's last page has room for some lines
				s.cmd.Process.Signal(unix.SIGUSR2)
				c.more(t, 100)
				s.Mu.Lock()
				said = slices.ContainsFunc(s.Other, func(l string) bool { return strings.Contains(l, "cannot write the log file") })
				s.Mu.Unlock()
			}
			c.more(t, 300) // each generation comes to rest
			undo()
			s.reload()
			c.more(t, 300) // a second, after which it is said
			s.reload()
			s.await("log.lost")
			s.kill()
		}, logs: []string{"log.lost"},
	}, {
		name: "full-deploy", root: true, setups: []setup{{node: true, drop: true}},
		tries: "the disk of the deployment is full: `handoff deploy` and `handoff switch`; then there is room",
		options: func(t *testing.T, u setup) options {
			src, dir := folder(t), folder(t)
			os.Chmod(dir, 0o755) // root obeys no file in one that is everybody's
			dir += "/small"
			for name, text := range map[string]string{"server.js": nodeServer, "package.json": `{"scripts":{"start":"node server.js"}}`} {
				if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			behind := small(dir)
			behind[len(behind)-1] = strings.TrimSuffix(behind[len(behind)-1], `; exec "$0" "$@"`) + fmt.Sprintf(
				`; chmod 755 %[1]s; "$0" setup %[1]s/web; "$0" deploy %[1]s/web v1 --from %[2]s --no-switch; "$0" switch %[1]s/web v1; exec "$0" run -n 2 --log json --drain-timeout 2s %[1]s/web`, dir, src)
			return options{behind: behind, env: []string{"SMALL=" + dir, "SOURCE=" + src}}
		},
		deed: func(t *testing.T, s *service, c *clients) {
			do := func(args ...string) error {
				cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(s.cmd.Process.Pid), "-m", binary}, args...)...)
				cmd.Env = s.cmd.Env
				out, err := cmd.CombinedOutput()
				t.Logf("%v: %s", args[0], out)
				return err
			}
			web := s.env("SMALL") + "/web"
			undo := s.fill(s.env("SMALL"))
			if do("deploy", web, "v2", "--from", s.env("SOURCE")) == nil || do("switch", web, "v1") == nil {
				t.Error("a success on a full disk")
			}
			c.more(t, 100)
			undo()
			if err := do("deploy", web, "v2", "--from", s.env("SOURCE")); err != nil {
				t.Error(err)
			}
		}, logs: []string{"cluster.reloaded"},
	}, {
		name: "log-removed", root: true, short: true, setups: ofRoot,
		tries: "the folder of `--capture files` and of `--log-file` is removed, and then the master is killed",
		options: func(t *testing.T, u setup) options {
			dir := folder(t) + "/logs"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return options{flags: []string{"--capture", "files", "--capture-dir", dir + "/of-workers", "--log-file", dir + "/log"}, env: []string{"SMALL=" + dir, "LOGFILE=" + dir + "/log"}}
		},
		deed: func(t *testing.T, s *service, c *clients) {
			os.RemoveAll(s.env("SMALL"))
			if err := os.WriteFile(s.env("SMALL"), nil, 0o600); err != nil { // in its place
				t.Fatal(err)
			}
			s.kill()
			c.more(t, 100)
		}, logs: []string{"log.reopened", "output.lost"},
	}}
}

// env is a variable that the service was started with.
func (s *service) env(name string) string {
	for _, kv := range slices.Backward(s.cmd.Env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// Killed for want of memory, in a memory cgroup.

func killedRows() []day {
	oom := func(name, tries string, short bool, which func(s *service) int, wait func(s *service)) day {
		return day{name: name, tries: tries, short: short, root: true, sticky: name == "oom-worker",
			deed: func(t *testing.T, s *service, c *clients) {
				dir := cgroup(t, "memory")
				victim := which(s)
				err := os.WriteFile(dir+"/memory.limit_in_bytes", []byte("65536"), 0)
				if err == nil {
					err = os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(victim)), 0)
				}
				if err != nil {
					t.Skip(err)
				}
				unix.Kill(victim, unix.SIGURG) // Go's own: it runs, and needs a page
				s.cmd.Process.Signal(unix.SIGUSR2)
				wait(s)
				c.more(t, 100)
				if s.master() == 0 {
					s.findKeeper()
				}
				s.happens(0, "cluster.reloaded")
			}, logs: []string{"worker.crashed", "master.adopted", "keeper.died"}}
	}
	return []day{
		oom("oom-master", "the kernel kills the master for want of memory (memory cgroup), in a reload", true,
			(*service).master, func(s *service) { s.await("master.adopted") }),
		oom("oom-keeper", "the kernel kills the keeper for want of memory (memory cgroup), in a reload", false,
			func(s *service) int { return s.cmd.Process.Pid }, func(s *service) { s.await("master.adopted") }),
		oom("oom-worker", "the kernel kills the worker of the first slot for want of memory (memory cgroup), in a reload", false,
			func(s *service) int { return s.worker(0) }, func(s *service) {}),
	}
}

// findKeeper finds the keeper that has replaced the first one: from now on signals are sent
// to it.
func (s *service) findKeeper() {
	s.t.Helper()
	for range 1000 {
		all, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range all {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			b, _ := os.ReadFile(path)
			args, _ := os.ReadFile(filepath.Dir(path) + "/cmdline")
			if strings.Contains(string(b), "\x00HANDOFF_RUNTIME_DIR="+s.env("HANDOFF_RUNTIME_DIR")+"\x00") && strings.HasPrefix(string(args), binary+"\x00run\x00") && pid != s.cmd.Process.Pid {
				s.cmd.Process, _ = os.FindProcess(pid)
				return
			}
		}
	}
	s.t.Fatal("no keeper is found")
}

// Stopped (SIGSTOP), in a reload.

func stoppedRows() []day {
	// For 3 s, with -long for 30 s, by the clients' pace of 300 requests a second.
	stop := func(name, tries string, short, sticky bool, which func(s *service) int) day {
		return day{name: name, tries: tries, short: short, sticky: sticky,
			deed: func(t *testing.T, s *service, c *clients) {
				victim := which(s)
				s.cmd.Process.Signal(unix.SIGUSR2)
				s.await("cluster.reloading")
				unix.Kill(victim, unix.SIGSTOP)
				for range map[bool]int{true: 10, false: 1}[*long] {
					c.more(t, 450)
				}
				unix.Kill(victim, unix.SIGCONT)
				s.await("cluster.reloaded")
			}, logs: []string{"worker.stalled", "keeper.mute", "cluster.reloaded"}}
	}
	return []day{
		stop("stopped-master", "SIGSTOP of the master in a reload", false, false, (*service).master),
		stop("stopped-keeper", "SIGSTOP of the keeper in a reload", false, false, func(s *service) int { return s.cmd.Process.Pid }),
		stop("stopped-worker", "SIGSTOP of the worker of the first slot in a reload", false, true, func(s *service) int { return s.worker(0) }),
	}
}

// worker is the pid of the worker of a slot that serves.
func (s *service) worker(slot int) (pid int) {
	for _, l := range s.said("worker.ready") {
		if l.Slot == slot {
			pid = l.PID
		}
	}
	return pid
}

// Odd places.

func placeRows() []day {
	killsMaster := func(t *testing.T, s *service, c *clients) {
		s.reload()
		s.kill()
		c.more(t, 100)
	}
	in := func(name, tries string, behind []string) day {
		return day{name: name, tries: tries, root: true, setups: ofRoot, deed: killsMaster, logs: []string{"notify.open", "preload.missing", "control.missing", "worker.unseated", "master.adopted"},
			options: func(*testing.T, setup) options { return options{behind: behind} }}
	}
	readOnly := in("read-only", "the state folder and the runtime folder cannot be written, /tmp and /dev/shm have no programs (read-only, noexec)", nil)
	readOnly.options = func(t *testing.T, u setup) options {
		dir := folder(t)
		return options{behind: mounts("mount -t tmpfs -o size=64k ro " + dir + "; mount -o remount,ro " + dir + "; mount -t tmpfs -o noexec,mode=1777 shm /dev/shm"),
			env: []string{"HANDOFF_STATE_DIR=" + dir + "/state", "HANDOFF_RUNTIME_DIR=" + dir + "/run"}}
	}
	inside := in("inside-itself", "handoff runs handoff: each worker of the outer one is an inner one", nil)
	inside.setups = oneUser
	inside.options = func(t *testing.T, u setup) options {
		program := []string{filepath.Join(folder(t), "server.js")}
		if u.node {
			os.WriteFile(program[0], []byte(nodeServer), 0o644)
		} else {
			program = pythonProgram(t, pythonServer)
		}
		return options{program: append([]string{binary, "run", "-n", "1", "--log", "text", "--drain-timeout", "2s", "--name", "inner", "--"}, program...)}
	}
	return []day{
		in("hidepid", "/proc is mounted with hidepid=2", mounts("mount -t proc -o hidepid=2 proc /proc")),
		in("no-shm", "/dev/shm is not there", mounts("umount -l /dev/shm; mount -t tmpfs -o ro,size=4k none /dev/shm")),
		readOnly,
		in("strace", "all of it runs under strace -f", []string{"strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bind,listen,execve"}),
		in("clock-offset", "a time namespace: its clock began 30 years ago", []string{"unshare", "-T", "--monotonic", "946080000", "--boottime", "946080000"}),
		inside, clockSet(),
	}
}

// clockSet has a handoff whose wall clock the test sets: Go's own package time, with what the
// test writes into a file added to the seconds. (Nothing else can set a process's
// CLOCK_REALTIME: a time namespace has no such clock, and a library that is preloaded does
// nothing to Go.)
func clockSet() day {
	return day{name: "clock-set", root: true, setups: ofRoot,
		tries: "the wall clock is set by hours, forward and back, in reloads in which the master is killed",
		options: func(t *testing.T, u setup) options {
			clock := filepath.Join(folder(t), "clock")
			if err := os.WriteFile(clock, make([]byte, 4096), 0o644); err != nil {
				t.Fatal(err)
			}
			return options{behind: []string{"sh", "-ec", "exec " + settable(t) + ` "$@"`}, env: []string{"HOSTILE_CLOCK=" + clock}, flags: []string{"--keepalive-linger", "1500ms", "--drain-timeout", "15s"}}
		},
		deed: func(t *testing.T, s *service, c *clients) {
			clock, err := os.OpenFile(s.env("HOSTILE_CLOCK"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer clock.Close()
			for i, hours := range []int64{3, -6, 100, 0} {
				n := len(s.said("worker.draining"))
				s.cmd.Process.Signal(unix.SIGUSR2)
				s.happens(n+1, "worker.draining")
				clock.WriteAt(bytes64(hours*3600), 0)
				s.kill()
				c.more(t, 300)
				s.happens(2*i+1, "worker.shutdown")
			}
			for _, event := range []string{"worker.terminated", "worker.killed"} {
				for _, l := range s.said(event) {
					t.Errorf("a deadline has come too soon: %v", l)
				}
			}
		}, logs: []string{"master.adopted"}}
}

func bytes64(n int64) []byte { return native.NativeEndian.AppendUint64(nil, uint64(n)) }

// settable builds a handoff with such a clock.
func settable(t *testing.T) string {
	t.Helper()
	out := filepath.Join(filepath.Dir(binary), "settable")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	if !strings.Contains(string(source), now) {
		t.Skip("this Go's time.Now is another")
	}
	patched := strings.Replace(string(source), now, now+"\tsec += clockIsSet()\n", 1)
	dir := folder(t)
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: put("time.go", patched),
		filepath.Join(filepath.Dir(file), "clock_is_set.go"): put("clock.go", clockIsSet)}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", put("overlay.json", string(overlay)), "-tags", "nethttpomithttp2", "-o", out, "handoff/cmd/handoff")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return out
}

const clockIsSet = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var clock = func() *int64 {
	path, _ := syscall.Getenv("HOSTILE_CLOCK")
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return new(int64)
	}
	b, err := syscall.Mmap(fd, 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	syscall.Close(fd)
	if err != nil {
		return new(int64)
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}()

func clockIsSet() int64 {
	if clock == nil { // still initialising
		return 0
	}
	return atomic.LoadInt64(clock)
}
`

// Seccomp profiles, of containers and sandboxes.

// profile is what one refuses: a call, and the error.
type profile map[string]unix.Errno

// docker is what Docker's default profile refuses to a container without capabilities
// (moby, profiles/seccomp/default.json); sandbox what gVisor does not have; bare is all that
// handoff can do without.
var (
	docker = profile{"pidfd_getfd": unix.EPERM, "io_uring_setup": unix.EPERM, "userfaultfd": unix.EPERM, "bpf": unix.EPERM, "unshare": unix.EPERM, "mount": unix.EPERM,
		"setns": unix.EPERM, "perf_event_open": unix.EPERM, "clone3": unix.ENOSYS}
	sandbox = profile{"pidfd_getfd": unix.ENOSYS, "seccomp-listener": unix.EINVAL, "reuseport-program": unix.ENOPROTOOPT, "sock-diag": unix.EPROTONOSUPPORT,
		"io_uring_setup": unix.ENOSYS, "userfaultfd": unix.ENOSYS, "bpf": unix.ENOSYS, "clone3": unix.ENOSYS, "close_range": unix.ENOSYS, "openat2": unix.ENOSYS}
	bare = profile{"pidfd_getfd": unix.EPERM, "process_vm_readv": unix.EPERM, "memfd_create": unix.EPERM, "sock-diag": unix.EPERM, "io_uring_setup": unix.EPERM,
		"clone3": unix.ENOSYS, "close_range": unix.EPERM, "openat2": unix.EPERM, "userfaultfd": unix.EPERM, "bpf": unix.EPERM, "unshare": unix.EPERM,
		"fchmodat2": unix.EPERM, "statx": unix.ENOSYS, "prlimit64": unix.EPERM}
)

func profileRows() []day {
	under := func(name, tries string, p profile, given bool) day {
		return day{name: name, tries: tries, setups: oneUser, mixed: given,
			options: func(t *testing.T, u setup) options {
				o := options{behind: p.command(t)}
				if given && !u.node { // its own sockets cannot be held
					o.behind = append(o.behind, shell("export HANDOFF_LISTEN=127.0.0.1:$PORT HANDOFF_READY_WHEN=ready")...)
					o.program = pythonProgram(t, strings.Replace(pythonServer, `s = S((os.environ["HOST"], int(os.environ["PORT"])), H)`, givenSocket, 1))
				}
				return o
			},
			deed: func(t *testing.T, s *service, c *clients) {
				s.reload()
				s.kill()
				c.more(t, 100)
			}, logs: []string{"worker.unseated", "address.hash", "master.adopted"}}
	}
	return []day{
		under("profile-docker", "Docker's default seccomp profile, without capabilities", docker, false),
		under("profile-sandbox", "what a sandbox like gVisor does not have: pidfd_getfd, seccomp notifications, steering programs, sock_diag, clone3, ...", sandbox, true),
		under("profile-bare", "a seccomp profile that refuses pidfd_getfd, process_vm_readv, memfd_create, sock_diag, io_uring, close_range, clone3, statx, prlimit, ...", bare, false),
	}
}

// unreadable is a program that handoff may not look into, as under Yama's ptrace_scope 2 or 3:
// this machine's is never changed, and a program whose file may not be read is the same to
// ptrace(2).
func unreadable() row {
	return row{group: "day", name: "ptrace-refused", tries: "a program that may not be inspected (its file cannot be read; so it is with any under Yama's ptrace_scope 2): a reload",
		run: func(t *testing.T, r *report) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to make a file that its user cannot read")
			}
			r.documented("its socket is its own: one worker, and no reload, which fails and changes nothing; handoff as root, or --listen")
			program := pythonProgram(t, pythonServer)
			b, err := os.ReadFile(program[0])
			if err == nil {
				program[0] = filepath.Join(filepath.Dir(program[1]), "python")
				err = os.WriteFile(program[0], b, 0o711)
			}
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, options{program: program, flags: []string{"-n", "1", "--max-failures", "1"}})
			s.mark("go")
			for err = unix.ECONNREFUSED; err != nil; { // its own listen(2) follows the notice of it
				var conn net.Conn
				if conn, err = net.Dial("tcp", s.addr); err == nil {
					conn.Close()
				}
			}
			c := s.clients()
			c.more(t, 60)
			if s.triesToReload() {
				t.Error("it reloads")
			}
			c.more(t, 100)
			c.count(t, r, false)
			if r.lost > 0 {
				t.Errorf("%d requests are lost", r.lost)
			}
			r.says(s.says("worker.garbled", "cluster.failed"))
			s.stop()
		}}
}

// givenSocket is a server on the socket that handoff passes.
const givenSocket = `
s = S(("127.0.0.1", 0), H, bind_and_activate=False)
s.socket.close()
s.socket = socket.socket(fileno=3)
s.server_name = "x"; s.server_port = 0
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
`

// refuser is the name by which the test binary installs a profile, and becomes what its
// arguments say.
const refuser = "refuser"

func (p profile) command(t *testing.T) []string {
	t.Helper()
	self := filepath.Join(folder(t), refuser)
	exe, err := os.Executable()
	if err == nil && os.Link(exe, self) != nil { // no copy: it would be busy while another row forks
		err = exec.Command("cp", exe, self).Run()
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for name, errno := range p {
		list = append(list, fmt.Sprintf("%s=%d", name, int(errno)))
	}
	return []string{self, strings.Join(list, ",")}
}

func init() {
	if filepath.Base(os.Args[0]) == refuser {
		fmt.Fprintln(os.Stderr, refuse(os.Args[1], os.Args[2:]))
		os.Exit(1)
	}
}

// refuse installs the profile, and becomes the command.
func refuse(list string, args []string) error {
	runtime.LockOSThread()
	calls := map[string]uint32{"pidfd_getfd": unix.SYS_PIDFD_GETFD, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "memfd_create": unix.SYS_MEMFD_CREATE,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "close_range": unix.SYS_CLOSE_RANGE, "clone3": unix.SYS_CLONE3, "openat2": unix.SYS_OPENAT2,
		"userfaultfd": unix.SYS_USERFAULTFD, "bpf": unix.SYS_BPF, "unshare": unix.SYS_UNSHARE, "mount": unix.SYS_MOUNT, "setns": unix.SYS_SETNS,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "fchmodat2": unix.SYS_FCHMODAT2, "statx": unix.SYS_STATX, "prlimit64": unix.SYS_PRLIMIT64}
	const number, argument = 0, 16 // offsets in struct seccomp_data
	load := func(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }
	is := func(n, skip uint32) bpf.Instruction {
		return bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: uint8(skip)}
	}
	program := []bpf.Instruction{load(number)}
	for one := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(one, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		ret := bpf.RetConstant{Val: 0x00050000 | uint32(n)} // SECCOMP_RET_ERRNO
		switch name {
		case "seccomp-listener": // SECCOMP_FILTER_FLAG_NEW_LISTENER
			program = append(program, is(unix.SYS_SECCOMP, 4), load(argument+8), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 8, SkipFalse: 1}, ret, load(number))
		case "reuseport-program":
			program = append(program, is(unix.SYS_SETSOCKOPT, 5), load(argument+16),
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SO_ATTACH_REUSEPORT_CBPF, SkipTrue: 1}, is(unix.SO_ATTACH_REUSEPORT_EBPF, 1), ret, load(number))
		case "sock-diag":
			program = append(program, is(unix.SYS_SOCKET, 6), load(argument), is(unix.AF_NETLINK, 3), load(argument+16), is(unix.NETLINK_INET_DIAG, 1), ret, load(number))
		default:
			nr, ok := calls[name]
			if !ok {
				return fmt.Errorf("no call %s", name)
			}
			program = append(program, is(nr, 1), ret)
		}
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: 0x7fff0000}))
	if err != nil {
		return err
	}
	instructions := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		instructions[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	filter := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return errno
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}
