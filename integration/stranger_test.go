package integration

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// notice sends a datagram to NOTIFY_SOCKET once a file is there, from the process group
// that is its argument; 0: it stays in its own.
const notice = `
import os, socket, sys, time
if int(sys.argv[1]): os.setpgid(0, int(sys.argv[1]))
while not os.path.exists(sys.argv[2]): time.sleep(.01)
to = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[3].encode(), to)
print("sent", flush=True)
sys.stdin.read(int(sys.argv[1])) # a stranger stays for a while
time.sleep(1)
`

// A process of the same user and session that joins a worker's process group does not pass
// for the worker; what the worker has started, and what has outlived its parent, does.
func TestStrangerInTheGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, file := filepath.Join(dir, "notice.py"), filepath.Join(dir, "now")
	if err := os.WriteFile(path, []byte(notice), 0o644); err != nil {
		t.Fatal(err)
	}
	w := start(t, options{flags: []string{"-n", "1"}, app: []string{"sh", "-c",
		`(python3 "$0" 0 "$1" STOPPING=1 &); exec node "$2"`, path, file, data("server.js")}, env: []string{"PORT=" + freePort(t)}})
	pid := w.workers()[0]
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range strings.Split(string(env), "\x00") {
		if !strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			continue
		}
		cmd := exec.Command("python3", path, strconv.Itoa(pid), "/", "WATCHDOG=trigger")
		cmd.Env, cmd.Stderr = append(os.Environ(), kv), os.Stderr
		stay, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		defer stay.Close()
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the stranger says %q, %v", line, err)
		}
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil { // after the stranger's, on the same socket
		t.Fatal(err)
	}
	if e := w.await("worker.leaving"); e.PID != pid {
		t.Errorf("%+v, want the worker %d to leave", e, pid)
	}
	if all := w.all("worker.hung"); len(all) > 0 {
		t.Errorf("the stranger is believed: %+v", all)
	}
	w.retired(1)
	w.stop()
}
