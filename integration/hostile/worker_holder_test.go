package hostile

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Processes that keep the listening socket, or multiply.

func holderRows() []row {
	return []row{
		deed{name: "leftover", tries: "a daemon (setsid, two forks) keeps the socket after its worker, accepts, and answers nothing",
			attack: `
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        say("done")
        kept = []
        sock.setblocking(True)
        while True: kept.append(sock.accept())
    os._exit(0)
os.wait()
`, logs: []string{"worker.descendants"}}.row(),
		deed{name: "stranger", short: true, tries: "hands the socket (SCM_RIGHTS) to a process that is none of handoff's: it accepts, answers nothing, and stays",
			before: outsider, attack: `
to = socket.socket(socket.AF_UNIX)
to.connect(os.path.join(here, "stranger"))
socket.send_fds(to, [b"x"], [fd])
say("done", to.recv(1))
`, logs: []string{"address.stranger", "address.mended"}}.row(),
		func() row {
			r := deed{name: "fork-bomb", tries: "forks without end, up to its RLIMIT_NPROC of 300", attack: `
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))
say("done")
while True:
    try: os.fork()
    except OSError: time.sleep(.05)
`, logs: []string{"worker.descendants"}}.row()
			r.alone = true
			return r
		}(),
	}
}

// outsider starts a process that is none of the service's, and accepts from what it is given.
func outsider(t *testing.T, s *service) {
	path := filepath.Join(s.dir, "stranger.py")
	os.WriteFile(path, []byte(`
import os, socket, sys
os.umask(0)
l = socket.socket(socket.AF_UNIX)
l.bind(sys.argv[1]); l.listen()
print("ready", flush=True)
c, _ = l.accept()
_, fds, _, _ = socket.recv_fds(c, 1, 1)
taken = socket.socket(fileno=fds[0])
taken.setblocking(True)
c.send(b"x")
kept = []
while True:
    try: kept.append(taken.accept())
    except OSError as e: sys.exit(str(e))
`), 0o644)
	cmd := exec.Command(python3(), path, filepath.Join(s.dir, "stranger"))
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}
