package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// Docker's default profile refuses pidfd_getfd: sockets are held all the same, and what is
// worse is said once. So it is where process_vm_readv is refused as well.
func TestPidfdGetfdRefused(t *testing.T) {
	t.Parallel()
	for _, deny := range []string{"pidfd_getfd", "pidfd_getfd,process_vm_readv"} {
		t.Run(deny, func(t *testing.T) {
			t.Parallel()
			w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t), "DENY=" + deny}, behind: []string{goProgram("denyseccomp")}})
			if said := w.all("worker.unseated"); len(said) != 1 || !strings.Contains(said[0].Msg, "pidfd_getfd is refused") {
				t.Errorf("said %+v, want once", said)
			}
			reloadsOf(t, w, 2, 3)
			w.stop()
		})
	}
}

// Without pidfd_open nothing works: that is said, and no master is started over and over.
func TestPidfdOpenRefused(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(goProgram("denyseccomp"), binary, "run", "-n", "1", "--", "sleep", "60")
	cmd.Env = append(cmd.Environ(), "DENY=pidfd_open", "HANDOFF_RUNTIME_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "pidfd_open or pidfd_send_signal is refused") {
		t.Errorf("%v: %s", err, out)
	}
}

// Where memfd_create is refused, files without a name do: binds are answered, and the next
// master finds the record.
func TestMemfdRefused(t *testing.T) {
	t.Parallel()
	w := start(t, options{flags: []string{"-n", "2"}, app: []string{goProgram("gosdk")}, env: []string{"PORT=" + freePort(t), "DENY=memfd_create"}, behind: []string{goProgram("denyseccomp")}})
	reloadsOf(t, w, 2, 2)
	w.stop()
}
