// Command systemd tries handoff under a real systemd, which it runs as pid 1 in
// namespaces of its own. It needs root, and systemd's and Node's packages:
//
//	make build && go run ./tools/systemd
//
// Under load it reloads, kills master and keeper, both, and upgrades, and counts
// what is lost.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"handoff/internal/load"
)

func main() {
	// systemd sets sysctls of the network namespace: it gets one of its own, and
	// this program with it.
	if os.Getenv("HANDOFF_TRY") == "" {
		self, err := os.Executable()
		if err == nil {
			cmd := exec.Command("unshare", append([]string{"-n", "--", self}, os.Args[1:]...)...)
			cmd.Env = append(os.Environ(), "HANDOFF_TRY=1")
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			err = cmd.Run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "systemd:", err)
			os.Exit(1)
		}
		return
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "systemd: lo: %v: %s\n", err, out)
		os.Exit(1)
	}
	if err := try(); err != nil {
		fmt.Fprintln(os.Stderr, "systemd:", err)
		os.Exit(1)
	}
}

type machine struct{ pid string }

func try() error {
	dir, err := os.MkdirTemp("", "handoff-systemd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	// PDEATHSIG, and pid 1's end is that of all in its namespace.
	cmd := exec.Command("unshare", "-m", "-p", "-f", "-u", "-i", "-C", "--kill-child", "--mount-proc",
		filepath.Join(here, "tools/systemd/start.sh"), dir, filepath.Join(here, "examples"), filepath.Join(here, "bin/handoff"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var m machine
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		m.pid = strings.TrimSpace(string(b))
		if m.pid != "" {
			if out, _ := m.run("systemctl", "is-system-running"); strings.Contains(out, "running") || strings.Contains(out, "degraded") {
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("systemd does not run")
		}
	}
	version, _ := m.run("systemctl", "--version")
	fmt.Println(strings.SplitN(version, "\n", 2)[0])
	unit, err := m.run("/usr/local/bin/handoff", "systemd", "--name", "web", "--user", "www-data", "-n", "2", "--cwd", "/srv/w/examples/node/plain", "--env", "PORT=3777", "server.js")
	if err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	if err := os.WriteFile("/proc/"+m.pid+"/root/etc/systemd/system/web.service", []byte(unit), 0o644); err != nil {
		return err
	}
	// A folder that an older root's handoff has made is closed to the unit's user, until
	// root's next one mends it.
	if out, err := m.run("sh", "-c", "mkdir -m 700 /run/handoff && handoff doctor >/dev/null; stat -c %a /run/handoff"); err != nil || strings.TrimSpace(out) != "755" {
		return fmt.Errorf("/run/handoff: %s, %v", out, err)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"start", "web"}} {
		if out, err := m.run("systemctl", args...); err != nil {
			return fmt.Errorf("systemctl %v: %s", args, out)
		}
	}
	for who, args := range map[string][]string{"root": nil, "the unit's user": {"setpriv", "--reuid", "www-data", "--regid", "www-data", "--clear-groups"}} {
		args = append(args, "/usr/local/bin/handoff", "ls")
		if out, err := m.run(args[0], args[1:]...); err != nil || !strings.Contains(out, "web ") {
			return fmt.Errorf("%s does not find the unit: %s, %v", who, out, err)
		}
	}
	fresh := load.Start(load.Config{Addr: "127.0.0.1:3777", Clients: 8})
	kept := load.Start(load.Config{Addr: "127.0.0.1:3777", Mode: load.KeepAlive, Clients: 8, Pause: time.Millisecond})
	for _, what := range []struct{ name, script string }{
		{"10 times systemctl reload", `for i in 1 2 3 4 5 6 7 8 9 10; do systemctl reload web; until systemctl show -P StatusText web | grep -q serves; do sleep 0.05; done; done`},
		{"10 times kill -9 of the master", `for i in 1 2 3 4 5 6 7 8 9 10; do kill -9 $(pgrep -P $(systemctl show -P MainPID web) -f __master); sleep 0.5; done`},
		{"10 times kill -9 of the keeper", `for i in 1 2 3 4 5 6 7 8 9 10; do kill -9 $(systemctl show -P MainPID web); sleep 1; done`},
		{"10 times kill -9 of both", `for i in 1 2 3 4 5 6 7 8 9 10; do k=$(systemctl show -P MainPID web); kill -9 $(pgrep -P $k -f __master) $k; sleep 1; done`},
		{"upgrade of the binary, and reload", `cp /usr/local/bin/handoff /usr/local/bin/new; printf x >> /usr/local/bin/new; mv /usr/local/bin/new /usr/local/bin/handoff; systemctl reload web; sleep 3`},
	} {
		began := time.Now()
		out, err := m.run("sh", "-c", what.script)
		fmt.Printf("%-36s %6.1fs %s\n", what.name, time.Since(began).Seconds(), strings.TrimSpace(out))
		if err != nil {
			return err
		}
	}
	if len(os.Args) > 1 {
		out, _ := m.run("journalctl", "-u", "web", "--no-pager", "-o", "cat")
		os.WriteFile(os.Args[1], []byte(out), 0o644)
	}
	out, _ := m.run("systemctl", "status", "web", "--no-pager", "-n", "0")
	fmt.Println(out)
	out, _ = m.run("/usr/local/bin/handoff", "status")
	fmt.Println(out)
	a, b := fresh.Stop(), kept.Stop()
	fmt.Printf("new connections: %v\nkeep-alive: %v\n", a, b)
	out, _ = m.run("systemctl", "stop", "web")
	out2, _ := m.run("systemctl", "show", "-P", "ActiveState,Result,NFileDescriptorStore", "web")
	fmt.Println("stopped:", strings.Join(strings.Fields(out+out2), " "))
	if out, _ = m.run("pgrep", "-a", "node"); out != "" {
		fmt.Println("left behind:", out)
	}
	if a.Lost()+b.Lost() > 0 {
		return fmt.Errorf("%d requests were lost", a.Lost()+b.Lost())
	}
	return nil
}

// run runs a command inside.
func (m machine) run(name string, args ...string) (string, error) {
	out, err := exec.Command("nsenter", append([]string{"-t", m.pid, "-m", "-p", "-u", "-i", "-C", "-r", "-w", name}, args...)...).CombinedOutput()
	return string(out), err
}
