package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/logtest"
)

// stranger is a user of the machine who runs neither handoff nor its workers.
const stranger = 65533

// strike is a row of one attack by another user on a service under load, before it starts
// or while it runs, and of what is left of it after two reloads.
type strike struct {
	name, tries string
	short       bool
	prepare     func(t *testing.T, own string) options
	attack      func(t *testing.T, s *service, own string) // own: the folder of prepare
	after       func(t *testing.T, s *service, own string) // what must not have happened; nil: none
	refused     bool                                       // the reload fails, and the old generation goes on
	logs        []string                                   // events that an operator sees
	log         string                                     // what is seen without a line of the log
}

func (k strike) row() row {
	return row{group: "user", name: k.name, tries: k.tries, short: k.short, run: func(t *testing.T, r *report) {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to be several users")
		}
		own := folder(t)
		os.Chmod(own, 0o755)
		o := options{setup: setup{drop: true}}
		if k.prepare != nil {
			o = k.prepare(t, own)
		}
		s := start(t, o)
		c := s.clients()
		c.more(t, 60)
		c.Begin("attack")
		if k.attack != nil {
			k.attack(t, s, own)
		}
		c.more(t, 150)
		if k.refused {
			s.cmd.Process.Signal(unix.SIGUSR2)
			s.awaitAny("reload.refused", "cluster.failed", "config.failed")
		} else if s.pid() == s.cmd.Process.Pid {
			s.reload()
		}
		c.Begin("after")
		c.more(t, 100)
		if k.after != nil {
			k.after(t, s, own)
		}
		c.count(t, r, false)
		for _, e := range k.logs {
			if all := s.said(e); len(all) > 0 {
				text := all[0].Msg
				if why := all[0].Reason; !strings.Contains(text, why) {
					text += ": " + why
				}
				r.says("`" + e + "` " + regexp.MustCompile(`/tmp/hostile\d+`).ReplaceAllString(text, "…"))
			}
		}
		r.says(k.log)
		s.quit()
	}}
}

// pid is the keeper's: another one than that which was started, if that was killed.
func (s *service) pid() int {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if s.keeper != 0 {
		return s.keeper
	}
	return s.cmd.Process.Pid
}

func (s *service) quit() {
	s.t.Helper()
	unix.Kill(s.pid(), unix.SIGTERM)
	if !s.Until(patience, func() bool { return s.Ended }) {
		s.t.Fatal("handoff does not end")
	}
	s.cmd.Wait()
}

// awaitAny waits for a line of one of the events.
func (s *service) awaitAny(events ...string) {
	s.t.Helper()
	if !s.Until(patience, func() bool {
		for _, e := range events {
			if len(logtest.Named(s.Lines, e)) > 0 {
				return true
			}
		}
		return false
	}) {
		s.t.Fatalf("none of %q within %v", events, patience)
	}
}

// as starts a program of the stranger's, or another user's, and waits until it says "go".
// It ends with the test.
func as(t *testing.T, uid uint32, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Wait()
	})
	said := make(chan string, 1)
	go func() { // ends with the program
		r := bufio.NewReader(out)
		line, err := r.ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		said <- line
		io.Copy(io.Discard, r)
	}()
	select {
	case line := <-said:
		if line != "go\n" {
			t.Fatalf("%q says %q", args[0], line)
		}
	case <-time.After(patience):
		t.Fatalf("%q says nothing", args[0])
	}
	return cmd
}

// python runs a stranger's Python, with what it may want imported.
func python(t *testing.T, code string, args ...string) *exec.Cmd {
	t.Helper()
	const before = "import ctypes, fcntl, glob, os, socket, sys, threading, time\ndef go(): print('go', flush=True)\n"
	return as(t, stranger, nil, append([]string{python3(), "-c", before + code}, args...)...)
}

// theirs makes a folder of the stranger's in own.
func theirs(t *testing.T, own, name string) string {
	t.Helper()
	path := filepath.Join(own, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t *testing.T, path, text string, mode os.FileMode, uid int) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, mode)
	os.Lchown(path, uid, uid)
	return path
}

// unchanged fails if a file of root's is not what it was.
func unchanged(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("root's file is gone: %v", err)
		return
	}
	if info, err := os.Stat(path); string(b) != text || err != nil || info.Mode().Perm() != mode || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("root's file has %q, %v", b, info.Mode())
	}
}

func userRows() []row {
	var all []row
	for _, k := range []strike{runtimePlanted(), runtimeSwapped(), runtimeFull(), sweptElsewhere(), pidFileLocked(), outputSwapped(), preloadSwapped(), binaryReplaced(),
		envFileLinked(), deploymentSwapped(), configPlanted(), socketsOfOthers(), secrets(), sameName(), environment(), managerDeaf(), adminCrowd(), adminRequests(), adminToken()} {
		all = append(all, k.row())
	}
	return all
}

// private runs handoff in a mount namespace of its own, after a script of root's there.
func private(script string, args ...string) []string {
	return append([]string{"unshare", "-m", "sh", "-ec", "n=$1; shift\n" + script + "\n" + `shift $n; exec "$@"`, "sh", strconv.Itoa(len(args))}, args...)
}

// runtimePlanted: folders like /tmp/handoff-UID are a stranger's before the service starts.
func runtimePlanted() strike {
	return strike{name: "runtime-planted", tries: "has made /tmp/handoff-UID, and a link /dev/shm/handoff-UID to a folder of the victim's, before a service of another user starts for the first time, and floods its abstract notify sockets then",
		prepare: func(t *testing.T, own string) options {
			planted, mine := theirs(t, own, "planted"), filepath.Join(own, "mine")
			os.Mkdir(mine, 0o700)
			os.Chown(mine, nobody, nobody)
			link := `mkdir -p "$1"; mount --bind "$2" "$1"`
			script := `mount -t tmpfs none /dev/shm; chmod 1777 /dev/shm; ` + link + `; ln -s "$3" /dev/shm/handoff-65534; chown -h 65533 /dev/shm/handoff-65534`
			behind := append(private(script, "/tmp/handoff-65534", planted, mine), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
			return options{setup: setup{drop: true}, behind: behind, env: []string{"HANDOFF_RUNTIME_DIR=", "XDG_RUNTIME_DIR=", "HANDOFF_STATE_DIR="}}
		},
		attack: func(t *testing.T, s *service, own string) {
			python(t, `
names = [l.split()[-1] for l in open("/proc/net/unix") if "@handoff/" in l]
pair = socket.socketpair()
def flood():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        for n in names:
            try: socket.send_fds(s, [b"READY=1\nSTOPPING=1\nWATCHDOG=trigger"], [pair[0].fileno()] * 100, socket.MSG_DONTWAIT, n.replace("@", "\0", 1))
            except OSError: pass
threading.Thread(target=flood, daemon=True).start()
go()
time.sleep(100)
`)
		},
		after: func(t *testing.T, s *service, own string) {
			for _, dir := range []string{"planted", "mine"} {
				if left, err := os.ReadDir(filepath.Join(own, dir)); err != nil || len(left) > 0 {
					t.Errorf("in the folder %s is %v, %v", dir, left, err)
				}
			}
		},
		logs: []string{"control.missing", "notify.open"},
	}
}

// runtimeSwapped: the runtime folder lies in a folder of a stranger's, who exchanges it.
func runtimeSwapped() strike {
	return strike{name: "runtime-swapped", tries: "owns the folder that root's HANDOFF_RUNTIME_DIR is in, and exchanges that for a folder of theirs, and for a link to root's files, while workers are started and the master is killed",
		prepare: func(t *testing.T, own string) options {
			theirs(t, own, "up")
			return options{setup: setup{drop: true}, env: []string{"HANDOFF_RUNTIME_DIR=" + filepath.Join(own, "up/run")}}
		},
		attack: func(t *testing.T, s *service, own string) {
			victim := filepath.Join(own, "victim")
			os.Mkdir(victim, 0o755)
			put(t, filepath.Join(victim, "file"), "root's", 0o644, 0)
			python(t, `
up, victim = sys.argv[1:]
run, kept, mine = up + "/run", up + "/kept", up + "/mine"
os.makedirs(mine + "/notify"); os.makedirs(mine + "/workers")
go()
while True:
    os.rename(run, kept); os.rename(mine, run); time.sleep(.002)
    os.rename(run, mine); os.symlink(victim, run); time.sleep(.002)
    os.unlink(run); os.rename(kept, run); time.sleep(.002)
`, filepath.Join(own, "up"), victim)
			s.reload()
			unix.Kill(s.master(), unix.SIGKILL)
			s.await("master.adopted")
		},
		after: func(t *testing.T, s *service, own string) {
			unchanged(t, filepath.Join(own, "victim/file"), "root's", 0o644)
		},
		logs: []string{"notify.open", "control.missing", "master.adopted"},
	}
}

// runtimeFull: runtime and state folder are on a file system that a stranger fills.
func runtimeFull() strike {
	return strike{name: "runtime-full", tries: "fills the file system, open to everybody, that runtime and state folder are on, its blocks and its inodes, and keeps it full while workers are started and the master is killed",
		prepare: func(t *testing.T, own string) options {
			shared := filepath.Join(own, "shared")
			os.Mkdir(shared, 0o755)
			return options{setup: setup{node: true, drop: true}, behind: private(`mount -t tmpfs -o size=256k,nr_inodes=64,mode=1777 none "$1"`, shared),
				env: []string{"HANDOFF_RUNTIME_DIR=" + filepath.Join(shared, "run"), "HANDOFF_STATE_DIR=" + filepath.Join(shared, "state")}}
		},
		attack: func(t *testing.T, s *service, own string) {
			as(t, 0, nil, "nsenter", "-t", strconv.Itoa(s.cmd.Process.Pid), "-m", "setpriv", "--reuid", strconv.Itoa(stranger), "--regid", strconv.Itoa(stranger), "--clear-groups", python3(), "-c", `
import os, sys, time
f, n, said = os.open(sys.argv[1] + "/big", os.O_CREAT | os.O_WRONLY), 0, False
while True:
    for what in "blocks", "inodes":
        try:
            while True:
                if what == "blocks": os.write(f, b"x" * 4096)
                else: os.close(os.open(sys.argv[1] + "/f%d" % n, os.O_CREAT)); n += 1
        except OSError as e: pass
    if not said: print("go", flush=True); said = True
    time.sleep(.001)
`, filepath.Join(own, "shared"))
			s.reload()
			unix.Kill(s.master(), unix.SIGKILL)
			s.await("master.adopted")
		},
		logs: []string{"record.failed", "control.missing", "notify.open", "preload.missing", "master.adopted"},
	}
}

// sweptElsewhere: root looks for old sockets in /tmp/handoff-0, too.
func sweptElsewhere() strike {
	const many = 500 // the sweep takes longer than an exchange
	return strike{name: "swept-elsewhere", tries: "makes /tmp/handoff-0 with old sockets, and exchanges the folder that they are in for a link to one of root's while root's handoff starts and sweeps",
		prepare: func(t *testing.T, own string) options {
			at := theirs(t, own, "handoff-0")
			victim := filepath.Join(own, "victim")
			os.Mkdir(victim, 0o755)
			for i := range many {
				put(t, filepath.Join(victim, strconv.Itoa(i)), "root's", 0o644, 0)
			}
			python(t, `
at, victim = sys.argv[1:3]
os.mkdir(at + "/sockets")
for i in range(int(sys.argv[3])):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(at + "/sockets/%d" % i); s.close()
    os.utime(at + "/sockets/%d" % i, (1, 1))
os.symlink(victim, at + "/link")
libc = ctypes.CDLL(None)
os.rename(at + "/sockets", at + "/notify")
go()
while True: libc.renameat2(-100, (at + "/notify").encode(), -100, (at + "/link").encode(), 2)
`, at, victim, strconv.Itoa(many))
			return options{setup: setup{drop: true}, behind: private(`mount -t tmpfs none /dev/shm; mkdir -p /tmp/handoff-0; mount --bind "$1" /tmp/handoff-0`, at)}
		},
		after: func(t *testing.T, s *service, own string) {
			if left, _ := os.ReadDir(filepath.Join(own, "victim")); len(left) != many {
				t.Errorf("of root's %d files are left %d", many, len(left))
			}
		},
		log: "nothing: root sweeps only folders of its own",
	}
}

// pidFileLocked: everybody may read a pid file, and so lock it.
func pidFileLocked() strike {
	return strike{name: "pid-file-locked", short: true, tries: "waits for the lock of the pid file, which everybody may read, has it when the keeper is killed, and keeps it from the next one",
		prepare: func(t *testing.T, own string) options {
			return options{setup: setup{drop: true}, flags: []string{"--pid-file", filepath.Join(own, "web.pid")}}
		},
		attack: func(t *testing.T, s *service, own string) {
			path := filepath.Join(own, "web.pid")
			locked := filepath.Join(theirs(t, own, "said"), "locked")
			python(t, `
f = os.open(sys.argv[1], os.O_RDONLY)
go()
fcntl.flock(f, fcntl.LOCK_EX)
open(sys.argv[2], "w").close()
time.sleep(100)
`, path, locked)
			unix.Kill(s.cmd.Process.Pid, unix.SIGKILL)
			s.await("keeper.died")
			s.await("master.adopted")
			b, err := os.ReadFile(path)
			pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || pid == s.cmd.Process.Pid || unix.Kill(pid, 0) != nil {
				t.Errorf("the pid file has %q, %v", b, err)
			}
			if _, err := os.Stat(locked); err != nil {
				t.Log("the attacker did not get the lock")
			}
			s.Mu.Lock()
			s.keeper = pid
			s.Mu.Unlock()
		},
		logs: []string{"keeper.missing", "master.adopted"},
	}
}

// outputSwapped: output goes into a folder of a stranger's.
func outputSwapped() strike {
	return strike{name: "output-swapped", tries: "exchanges the files and the folder that root writes workers' output to for links to root's files, hard links, pipes that nobody reads and sockets, at 20 reopenings (USR1)",
		prepare: func(t *testing.T, own string) options {
			return options{setup: setup{drop: true}, flags: []string{"--capture", "files", "--capture-dir", filepath.Join(theirs(t, own, "up"), "logs"), "--name", "web"}}
		},
		attack: func(t *testing.T, s *service, own string) {
			put(t, filepath.Join(own, "secret"), "root's", 0o644, 0)
			python(t, `
up, secret = sys.argv[1:]
logs = up + "/logs"
os.rename(logs, up + "/roots")
os.mkdir(logs)
go()
def plant(i):
    for slot in range(2):
        at = logs + "/web.%d.log" % slot
        try: os.unlink(at)
        except OSError: pass
        try:
            if i % 4 == 0: os.symlink(secret, at)
            elif i % 4 == 1: os.mkfifo(at)
            elif i % 4 == 2: socket.socket(socket.AF_UNIX).bind(at)
            else: os.link(secret, at)
        except OSError: pass
i = 0
while True:
    plant(i); i += 1; time.sleep(.003)
    if i % 5 == 0:
        os.rename(logs, up + "/mine"); os.symlink(os.path.dirname(secret), logs); time.sleep(.003); os.unlink(logs); os.rename(up + "/mine", logs)
`, filepath.Join(own, "up"), filepath.Join(own, "secret"))
			for n := range 20 {
				s.cmd.Process.Signal(unix.SIGUSR1)
				s.Until(300*time.Millisecond, func() bool { return len(logtest.Named(s.Lines, "log.reopened")) > n })
			}
		},
		after: func(t *testing.T, s *service, own string) {
			unchanged(t, filepath.Join(own, "secret"), "root's", 0o644)
			if left, _ := filepath.Glob(filepath.Join(own, "web.*")); len(left) > 0 {
				t.Errorf("root has written %v", left)
			}
		},
		logs: []string{"output.lost", "log.reopened"},
	}
}

// preloadSwapped: the folder of the preload lies in a folder of a stranger's.
func preloadSwapped() strike {
	return strike{name: "preload-swapped", tries: "owns the folder that root's HANDOFF_STATE_DIR is in, and exchanges that for one with a drain preload of theirs, which every Node worker would run",
		prepare: func(t *testing.T, own string) options {
			return options{setup: setup{node: true, drop: true}, env: []string{"HANDOFF_STATE_DIR=" + filepath.Join(theirs(t, own, "up"), "state"), "STATE_DIRECTORY=" + filepath.Join(own, "second")}}
		},
		attack: func(t *testing.T, s *service, own string) {
			python(t, `
up, mark = sys.argv[1:]
evil = "require('fs').writeFileSync(%r, 'x')" % mark
state, mine = (up + "/state").encode(), (up + "/mine").encode()
os.mkdir(mine)
if not os.path.exists(state): os.mkdir(state)
for f in os.listdir(state) or [b"preload-000000000000.cjs"]: open(mine + b"/" + f, "w").write(evil)
libc = ctypes.CDLL(None)
go()
while True: libc.renameat2(-100, state, -100, mine, 2); time.sleep(.005)
`, filepath.Join(own, "up"), filepath.Join(s.dir, "owned"))
			s.reload()
		},
		after: func(t *testing.T, s *service, own string) {
			if _, err := os.Stat(filepath.Join(s.dir, "owned")); err == nil {
				t.Error("a worker has run the stranger's code")
			}
		},
		log: "nothing: the preload is put where nobody else can exchange it",
	}
}

// binaryReplaced: root runs a handoff that a stranger can replace, as one of node_modules.
func binaryReplaced() strike {
	return strike{name: "binary-replaced", short: true, tries: "replaces the binary of root's handoff, which lies in a folder of theirs (node_modules), so that the next reload would upgrade to it, as root",
		prepare: func(t *testing.T, own string) options {
			at := filepath.Join(theirs(t, own, "bin"), "handoff")
			b, err := os.ReadFile(binary)
			if err != nil {
				t.Fatal(err)
			}
			put(t, at, string(b), 0o755, stranger)
			return options{setup: setup{drop: true}, binary: at}
		},
		attack: func(t *testing.T, s *service, own string) {
			at := filepath.Join(own, "bin/handoff")
			put(t, at+"~", "#!/bin/sh\nid > "+filepath.Join(own, "bin/owned")+"\n", 0o755, stranger)
			os.Rename(at+"~", at)
		},
		after: func(t *testing.T, s *service, own string) {
			if b, err := os.ReadFile(filepath.Join(own, "bin/owned")); err == nil {
				t.Errorf("root has run it: %s", b)
			}
		},
		logs: []string{"upgrade.failed"},
	}
}

// envFileLinked: the environment file lies in a folder of a stranger's.
func envFileLinked() strike {
	return strike{name: "env-file-linked", short: true, refused: true, tries: "exchanges the environment file of root's handoff, in a folder of theirs, for a link to a file that only root may read, whose values workers would get",
		prepare: func(t *testing.T, own string) options {
			put(t, filepath.Join(theirs(t, own, "up"), "env"), "COLOR=blue\n", 0o644, stranger)
			return options{setup: setup{drop: true}, flags: []string{"--env-file", filepath.Join(own, "up/env")}}
		},
		attack: func(t *testing.T, s *service, own string) {
			secret := put(t, filepath.Join(own, "secret"), "SECRET=hunter2\n", 0o600, 0)
			link := filepath.Join(own, "up/env")
			os.Remove(link)
			os.Symlink(secret, link)
			os.Lchown(link, stranger, stranger)
		},
		after: func(t *testing.T, s *service, own string) {
			for _, pid := range s.workers() {
				if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); strings.Contains(string(b), "hunter2") {
					t.Errorf("the worker %d has root's secret", pid)
				}
			}
		},
		logs: []string{"cluster.failed", "reload.refused", "config.failed"},
	}
}

// deploymentSwapped: root deploys, from a source of a stranger's, into a stranger's folder.
func deploymentSwapped() strike {
	return strike{name: "deployment-swapped", tries: "owns the deployment and the source of root's `handoff deploy`, `switch` and `clean`: exchanges copies, versions and the resource link for links to root's folder meanwhile, and has a setuid program in the source",
		attack: func(t *testing.T, s *service, own string) {
			victim := filepath.Join(own, "victim")
			os.Mkdir(victim, 0o755)
			put(t, filepath.Join(victim, "file"), "root's", 0o644, 0)
			os.WriteFile(filepath.Join(own, "secret"), []byte("hunter2"), 0o600)
			web, src := theirs(t, own, "web"), theirs(t, own, "src")
			for i := range 40 {
				put(t, filepath.Join(src, "f"+strconv.Itoa(i)), "theirs", 0o644, stranger)
			}
			put(t, filepath.Join(src, "shell"), "#!/bin/sh\n", 0o755, stranger)
			os.Chmod(filepath.Join(src, "shell"), 0o755|os.ModeSetuid)
			put(t, filepath.Join(web, ".rack.json"), `{"resourceLink": "../victim/planted", "resources": "in", "versions": [], "head": false}`, 0o644, stranger)
			deploy := func(args ...string) bool {
				out, err := exec.Command(binary, args...).CombinedOutput()
				if err != nil {
					t.Logf("%v: %s", args[0], out)
				}
				return err == nil
			}
			if !deploy("deploy", web, "calm", "--from", src, "--no-switch") {
				t.Error("it is not deployed")
			}
			os.Mkdir(filepath.Join(web, "calm/in"), 0o755)
			if deploy("switch", web, "calm") {
				t.Error("a resource link out of the deployment is made")
			}
			python(t, `
web, src, victim, secret, up = sys.argv[1:]
libc = ctypes.CDLL(None)
os.symlink(victim, up + "/folder")
os.symlink(secret, up + "/file")
def swap(a, b): libc.renameat2(-100, a.encode(), -100, b.encode(), 2)
go()
seen = set()
while True:
    for n in os.listdir(web):
        if n.startswith(".deploy") and n not in seen:
            seen.add(n); swap(web + "/" + n, up + "/folder"); time.sleep(.003); swap(web + "/" + n, up + "/folder")
    swap(src + "/f7", up + "/file"); time.sleep(.0005); swap(src + "/f7", up + "/file"); time.sleep(.0005)
`, web, src, victim, filepath.Join(own, "secret"), theirs(t, own, "up"))
			deployed := 0
			for i := range 15 {
				if deploy("deploy", web, "v"+strconv.Itoa(i), "--from", src, "--no-switch") {
					deployed++
				}
			}
			deploy("clean", web, "--keep", "3")
			t.Logf("%d of 15 are deployed", deployed)
			filepath.WalkDir(web, func(path string, d os.DirEntry, err error) error {
				if err != nil {
					return nil
				}
				info, err := d.Info()
				if err == nil && info.Mode()&os.ModeSetuid != 0 && info.Sys().(*syscall.Stat_t).Uid == 0 {
					t.Errorf("%s is root's, and setuid", path)
				}
				if b, _ := os.ReadFile(path); d.Type().IsRegular() && string(b) == "hunter2" && info.Mode().Perm()&0o044 != 0 {
					t.Errorf("%s has root's secret", path)
				}
				return nil
			})
		},
		after: func(t *testing.T, s *service, own string) {
			unchanged(t, filepath.Join(own, "victim/file"), "root's", 0o644)
			if left, _ := os.ReadDir(filepath.Join(own, "victim")); len(left) != 1 {
				t.Errorf("in root's folder is %v", left)
			}
		},
		log: "`cannot link the resources: … path escapes from parent`",
	}
}

// configPlanted: a handoff.toml appears where the service was started without one.
func configPlanted() strike {
	return strike{name: "config-planted", refused: true, tries: "puts a handoff.toml with a hook into the folder, open to everybody, in which root's handoff was started without one",
		attack: func(t *testing.T, s *service, own string) {
			put(t, filepath.Join(s.dir, "handoff.toml"), "[hooks]\nbefore_reload = \"id > "+filepath.Join(s.dir, "owned")+"\"\n", 0o644, stranger)
		},
		after: func(t *testing.T, s *service, own string) {
			if b, err := os.ReadFile(filepath.Join(s.dir, "owned")); err == nil {
				t.Errorf("root has run the hook: %s", b)
			}
		},
		logs: []string{"config.failed", "reload.refused", "cluster.failed"},
	}
}

// socketsOfOthers: a stranger speaks to every socket that there is.
func socketsOfOthers() strike {
	return strike{name: "sockets", tries: "connects to, and sends to, the control socket, the keeper's and the workers' notify sockets, by path, by /proc/net/unix and by abstract names, a thousand times; and binds abstract names like handoff's first",
		attack: func(t *testing.T, s *service, own string) {
			dir := ""
			for _, e := range s.cmd.Env {
				if d, ok := strings.CutPrefix(e, "HANDOFF_RUNTIME_DIR="); ok {
					dir = d
				}
			}
			sockets, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
			notify, _ := filepath.Glob(filepath.Join(dir, "notify", "*"))
			if len(sockets) == 0 || len(notify) < 3 {
				t.Fatalf("sockets %q, notify %q in %s", sockets, notify, dir)
			}
			python(t, `
names = sys.argv[1:] + [l.split()[-1] for l in open("/proc/net/unix") if os.path.dirname(sys.argv[1]) in l]
held = []
for n in ["\0handoff", "\0handoff/notify", "\0handoff/keeper"]:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(n); held.append(s)
got = 0
for n in names * (1000 // len(names) + 1):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_UNIX, kind)
        try:
            s.connect(n.replace("@", "\0", 1)); s.send(b"READY=1\nSTOPPING=1\nX_DRAINING=1\nWATCHDOG=trigger"); got += 1
        except OSError: pass
        s.close()
print("go" if got == 0 else "sent to %d" % got, flush=True)
time.sleep(100)
`, append(sockets, notify...)...)
		},
		log: "nothing: none of them can be reached (EACCES)",
	}
}

// secrets: what others may read of processes, and of handoff's answers.
func secrets() strike {
	const secret, token = "hunter2-secret", "0123456789abcdef-token"
	return strike{name: "secrets", tries: "reads all of /proc that they may (arguments, environment, status, links), looking for values of the environment, of the environment file, and for the token of --admin; root looks for them in status, config, events, log, runtime folder and arguments",
		prepare: func(t *testing.T, own string) options {
			os.Chmod(own, 0o755)
			file := put(t, filepath.Join(own, "env"), "FROM_FILE="+secret+"\n", 0o600, 0)
			admin := put(t, filepath.Join(own, "token"), token+"\n", 0o600, 0)
			return options{setup: setup{drop: true}, flags: []string{"--env-file", file, "--admin", "127.0.0.1:" + freePort(t), "--admin-token-file", admin, "--name", "web"}, env: []string{"SECRET=" + secret}}
		},
		attack: func(t *testing.T, s *service, own string) {
			python(t, `
words = [w.encode() for w in sys.argv[1:]]
me = "/proc/%d/" % os.getpid()
found = []
for f in glob.glob("/proc/[0-9]*/*") + glob.glob("/proc/[0-9]*/task/*/environ") + glob.glob("/proc/[0-9]*/fd/*"):
    if f.startswith(me) or "/task" in f and f.endswith("/task") or os.path.isdir(f): continue
    try:
        with open(f, "rb", buffering=0) as h:
            b = h.read(1 << 16) if not f.endswith(("mem", "kmsg", "pagemap")) else b""
    except OSError: continue
    if any(w in (b or b"") for w in words): found.append(f)
print("go" if not found else "found in %s" % found, flush=True)
time.sleep(100)
`, secret, token)
			for _, args := range [][]string{{"status", "web", "--json"}, {"status", "web"}, {"config", "web"}, {"events", "web", "--json"}, {"ls"}} {
				cmd := exec.Command(binary, args...)
				cmd.Env = s.cmd.Env
				out, _ := cmd.CombinedOutput()
				if len(out) == 0 || strings.Contains(string(out), secret) || strings.Contains(string(out), token) {
					t.Errorf("handoff %v: %s", args, out)
				}
			}
			for _, pid := range append(s.workers(), s.master(), s.pid()) {
				if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), secret) || strings.Contains(string(b), token) {
					t.Errorf("arguments of %d: %q", pid, b)
				}
			}
			for _, e := range s.cmd.Env {
				if dir, ok := strings.CutPrefix(e, "HANDOFF_RUNTIME_DIR="); ok {
					filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
						if err == nil && d.Type().IsRegular() {
							if b, _ := os.ReadFile(path); strings.Contains(string(b), secret) {
								t.Errorf("%s has it", path)
							}
						}
						return nil
					})
				}
			}
		},
		after: func(t *testing.T, s *service, own string) {
			s.Mu.Lock()
			defer s.Mu.Unlock()
			for _, text := range s.Other {
				if strings.Contains(text, secret) || strings.Contains(text, token) {
					t.Errorf("handoff prints %s", text)
				}
			}
			for _, l := range s.Lines {
				if strings.Contains(l.String(), secret) || strings.Contains(l.String(), token) {
					t.Errorf("the log has %v", l)
				}
			}
		},
		log: "nothing: they are in no place that others may read",
	}
}

// sameName: a stranger has a handoff of the same name, port and folder of places.
func sameName() strike {
	return strike{name: "same-name", tries: "runs a handoff of the same name at the same port, also with SO_REUSEPORT, and tells its own `stop`, `reload` and `scale` the name of the victim's service",
		prepare: func(t *testing.T, own string) options {
			return options{setup: setup{drop: true}, flags: []string{"--name", "web"}}
		},
		attack: func(t *testing.T, s *service, own string) {
			up := theirs(t, own, "up")
			_, port, _ := net.SplitHostPort(s.addr)
			env := []string{"HANDOFF_RUNTIME_DIR=" + filepath.Join(up, "run"), "HANDOFF_STATE_DIR=" + filepath.Join(up, "state"), "HOME=" + up, "PORT=" + port, "HOST=127.0.0.1", "WORKER_ID=1", "HANDOFF_GENERATION=2"}
			script := `
"$1" run -n 1 --name web --max-failures 1 --log json -- "$2" "$3" > "$4/out" 2>&1; echo "ended $?" >> "$4/out"
for c in stop reload "scale 1"; do "$1" ${c% *} web ${c#stop} >> "$4/out" 2>&1; HANDOFF_RUNTIME_DIR=` + runtimeOf(s) + ` "$1" ${c% *} web >> "$4/out" 2>&1; done
"$2" -c 'import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try: s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("bound")
except OSError as e: print(e)' "$PORT" >> "$4/out"
echo go; sleep 100`
			as(t, stranger, env, "sh", "-c", script, "sh", binary, python3(), filepath.Join(s.dir, "server.py"), up)
			out, _ := os.ReadFile(filepath.Join(up, "out"))
			if text := string(out); !strings.Contains(text, "ended 1") || strings.Contains(text, "bound") {
				t.Errorf("%s", out)
			}
		},
		after: func(t *testing.T, s *service, own string) {
			if n := len(s.said("cluster.reloaded")); n != 1 || len(s.said("cluster.scaled")) > 0 {
				t.Errorf("%d reloads, one is the test's", n)
			}
		},
		log: "nothing: the other one does not start, and finds no service",
	}
}

func runtimeOf(s *service) (dir string) {
	for _, e := range s.cmd.Env {
		if d, ok := strings.CutPrefix(e, "HANDOFF_RUNTIME_DIR="); ok {
			dir = d
		}
	}
	return dir
}

// environment: variables that handoff's processes tell each other, said from outside.
func environment() strike {
	return strike{name: "environment", tries: "(who may set its environment: sudo -E, a unit) says handoff's own variables to it from outside: keeper, instance, program, binary's descriptor, upgrade's parent, LISTEN_FDS of a million, a watchdog of 1 µs",
		prepare: func(t *testing.T, own string) options {
			return options{setup: setup{drop: true}, env: []string{"HANDOFF_KEEPER=1", "HANDOFF_INSTANCE=../../x", "HANDOFF_BINARY_FD=1", "HANDOFF_RESTARTS=-7", "HANDOFF_REASON=\x1b[2J",
				"HANDOFF_UPSTREAM=/nowhere", "LISTEN_PID=1", "LISTEN_FDS=1000000", "LISTEN_FDNAMES=keep-master.1:keep-state.1", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "FDSTORE=99999999999999999999",
				"NODE_CHANNEL_FD=0", "NODE_UNIQUE_ID=1", "HANDOFF_PARENT=1", "HANDOFF_SERVICE=x", "NODE_OPTIONS=--require /nowhere"}}
		},
		log: "nothing: they do not count, and workers do not get them",
	}
}

// managerDeaf: NOTIFY_SOCKET leads to a socket that nobody reads.
func managerDeaf() strike {
	return strike{name: "manager-deaf", tries: "(as the service manager, or who poses as it) has NOTIFY_SOCKET lead to a socket whose queue is full and that nobody reads, with FDSTORE and a watchdog: every descriptor and sign of life waits for it",
		prepare: func(t *testing.T, own string) options {
			path := filepath.Join(own, "notify")
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			fill, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { fill.Close() })
			fill.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			for err == nil {
				_, err = fill.Write([]byte("full"))
			}
			return options{setup: setup{drop: true}, env: []string{"NOTIFY_SOCKET=" + path, "FDSTORE=512", "WATCHDOG_USEC=2000000"}}
		},
		log: "`handoff: keeper: the service manager does not read …: what it is told waits, the service goes on`",
	}
}
