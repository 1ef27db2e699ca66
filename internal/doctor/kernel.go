package doctor

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/bindintercept"
)

// before tells whether the kernel is older than a version.
func (m Machine) before(major, minor int) bool {
	var a, b int
	fmt.Sscanf(m.Release, "%d.%d", &a, &b)
	return a < major || a == major && b < minor
}

func kernel(m Machine) Verdict {
	v := Verdict{State: OK, What: "Linux " + m.Release}
	switch {
	case m.before(5, 9):
		v.State, v.Advice = Missing, "handoff needs Linux 5.9 or later (pidfds, seccomp user notification that passes descriptors)"
	case m.before(6, 9):
		v.State, v.Advice = Worse, "from Linux 6.9 on, whole process groups are signalled by pidfd; from 6.15 on, the exit code of adopted workers is known"
	}
	return v
}

// steering attaches a program as a master would.
func steering(Machine) Verdict {
	err := trySteering()
	if err == nil {
		return Verdict{State: OK, What: "the kernel accepts programs that select the socket (SO_ATTACH_REUSEPORT_CBPF)"}
	}
	v := Verdict{State: Worse, What: "sockets cannot be shared: " + err.Error(),
		Advice: "connections are spread by the kernel's hash, and generations overlap on their sockets; gVisor and old kernels are like that"}
	if errors.Is(err, errNotSteerable) {
		v.What = err.Error()
	}
	return v
}

var errNotSteerable = errors.New("the kernel refuses programs that select the socket")

func trySteering() error {
	watch, err := handoff.NewWatch()
	if err != nil {
		return err
	}
	defer watch.Close()
	g, err := watch.Listen(handoff.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		return err
	}
	if !g.Steerable() {
		return errNotSteerable
	}
	return nil
}

// bindContract runs a program behind the trampoline's filter.
func bindContract(Machine) Verdict {
	if err := bindintercept.Try("/proc/self/exe"); err != nil {
		return Verdict{Worse, "seccomp user notification is refused: " + err.Error(),
			"programs other than node need --listen ADDR and LISTEN_FDS (the activation contract); in a container, its seccomp profile refuses it"}
	}
	return Verdict{State: OK, What: "bind and listen of any program can be answered (seccomp user notification)"}
}

// pidfd opens one of this process, and asks whether it could signal it.
func pidfd(m Machine) Verdict {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return Verdict{Missing, "pidfd_open is refused: " + err.Error(), "handoff cannot watch its workers; a container's seccomp profile may refuse it"}
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return Verdict{Missing, "pidfd_send_signal is refused: " + err.Error(), "handoff cannot signal its workers; a container's seccomp profile may refuse it"}
	}
	if m.before(6, 15) {
		return Verdict{Worse, "processes are watched and signalled by descriptor; the exit code of adopted workers is not known",
			"from Linux 6.15 on, a new master reports the exit code of a worker that the previous one had started"}
	}
	return Verdict{State: OK, What: "processes are watched and signalled by descriptor, and how they ended is known"}
}

// descriptors takes one from a process that is not below this one, as a handoff does
// that comes after keeper and master were both killed.
func descriptors(m Machine) Verdict {
	err := tryDescriptors()
	switch {
	case err == nil:
		return Verdict{State: OK, What: "sockets of workers can be taken back after keeper and master were killed (pidfd_getfd)"}
	case !errors.Is(err, unix.EPERM):
		return Verdict{State: Info, What: "cannot be tried here: " + err.Error()}
	}
	v := Verdict{Worse, "pidfd_getfd is refused: if keeper and master are killed at once, the next start cannot take the sockets back from the workers",
		"under systemd it does not matter (its fd store has them); else run handoff as root with --user"}
	if scope := m.Sysctl("kernel/yama/ptrace_scope"); scope != "" && scope != "0" {
		v.What = "kernel.yama.ptrace_scope=" + scope + ": if keeper and master are killed at once, the next start cannot take the sockets back from the workers"
		v.Advice += ", or sysctl -w kernel.yama.ptrace_scope=0"
	}
	return v
}

// tryDescriptors starts an orphan, takes its standard input, and ends it.
func tryDescriptors() error {
	// It ends with its input, at the latest.
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	cmd := exec.Command("/bin/sh", "-c", "{ read x <&3; } >/dev/null 2>&1 & echo $!")
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.Output()
	read.Close()
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	taken, err := unix.PidfdGetfd(fd, 3, 0)
	if err == nil {
		unix.Close(taken)
	}
	return err
}
