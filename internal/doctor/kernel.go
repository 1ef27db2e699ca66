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

// before reports whether the kernel is older than a version.
func (m Machine) before(major, minor int) bool {
	var a, b int
	fmt.Sscanf(m.Release, "%d.%d", &a, &b)
	return a < major || a == major && b < minor
}

func kernel(m Machine) Verdict {
	v := Verdict{State: OK, What: "Linux " + m.Release}
	switch {
	case m.before(5, 9):
		v.State, v.Advice = Missing, "handoff requires Linux 5.9 or later (pidfds, seccomp user notification with descriptors)"
	case m.before(6, 9):
		v.State, v.Advice = Worse, "Linux 6.9 can signal process groups by pidfd; Linux 6.15 reports the exit code of adopted workers"
	}
	return v
}

// steering attaches a program as a master would.
func steering(Machine) Verdict {
	err := trySteering()
	if err == nil {
		return Verdict{State: OK, What: "the kernel supports socket selection (SO_ATTACH_REUSEPORT_CBPF)"}
	}
	v := Verdict{State: Worse, What: "cannot share a port between sockets: " + err.Error(),
		Advice: "the kernel's hash distributes connections, and during a reload both generations accept them; known of gVisor and old kernels"}
	if errors.Is(err, errNotSteerable) {
		v.What = err.Error()
	}
	return v
}

var errNotSteerable = errors.New("the kernel does not support socket selection (SO_ATTACH_REUSEPORT_CBPF)")

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

// bindContract runs a program under the trampoline's seccomp filter.
func bindContract(m Machine) Verdict {
	if err := bindintercept.Try("/proc/self/exe"); err != nil {
		return Verdict{Worse, "seccomp user notification does not work: " + err.Error(),
			"programs other than Node require --listen ADDR and LISTEN_FDS (the activation contract); in a container, allow it in the seccomp profile"}
	}
	switch err := bindintercept.TryInspect(); {
	case errors.Is(err, bindintercept.ErrBlind):
		return Verdict{Worse, "programs cannot be inspected: " + err.Error(),
			"programs other than node run on sockets of their own; use --listen ADDR and LISTEN_FDS (the activation contract), or allow pidfd_getfd in the container's seccomp profile (cap_add: SYS_PTRACE)"}
	case err != nil:
		return Verdict{Worse, "programs can be inspected in part: " + err.Error(),
			"their sockets are held, but options that they set before bind are lost, and a port 0 is not held; allow pidfd_getfd in the container's seccomp profile (cap_add: SYS_PTRACE)"}
	}
	if scope := m.number("kernel/yama/ptrace_scope"); scope >= 2 && os.Geteuid() != 0 {
		return Verdict{Worse, fmt.Sprintf("kernel.yama.ptrace_scope=%d: programs cannot be inspected without CAP_SYS_PTRACE", scope),
			"programs other than node run on sockets of their own; use --listen ADDR and LISTEN_FDS (the activation contract), or run handoff as root with --user"}
	}
	return Verdict{State: OK, What: "bind and listen of any program can be intercepted (seccomp user notification)"}
}

// pidfd opens a pidfd of this process and sends signal 0 through it.
func pidfd(m Machine) Verdict {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return Verdict{Missing, "pidfd_open failed: " + err.Error(), "handoff cannot monitor its workers; in a container, allow pidfd_open in the seccomp profile"}
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return Verdict{Missing, "pidfd_send_signal failed: " + err.Error(), "handoff cannot signal its workers; in a container, allow pidfd_send_signal in the seccomp profile"}
	}
	if m.before(6, 15) {
		return Verdict{Worse, "pidfds work, but do not report the exit code of adopted workers",
			"Linux 6.15 or later reports the exit code of a worker that a previous master started"}
	}
	return Verdict{State: OK, What: "pidfds work, and report exit codes"}
}

// descriptors copies a descriptor of a process that is no descendant of this one, as
// handoff does at a start after keeper and master were both killed.
func descriptors(m Machine) Verdict {
	err := tryDescriptors()
	switch {
	case err == nil:
		return Verdict{State: OK, What: "sockets can be recovered from workers after keeper and master were killed (pidfd_getfd)"}
	case !errors.Is(err, unix.EPERM):
		return Verdict{State: Info, What: "not tested: " + err.Error()}
	}
	v := Verdict{Worse, "pidfd_getfd is not permitted: if keeper and master are killed at once, the next start cannot recover the sockets from the workers",
		"not needed under systemd with FileDescriptorStoreMax; otherwise run handoff as root with --user"}
	if scope := m.Sysctl("kernel/yama/ptrace_scope"); scope != "" && scope != "0" {
		v.What = "kernel.yama.ptrace_scope=" + scope + ": if keeper and master are killed at once, the next start cannot recover the sockets from the workers"
		v.Advice += ", or sysctl -w kernel.yama.ptrace_scope=0"
	}
	return v
}

// tryDescriptors starts an orphan, copies one of its descriptors, and ends it.
func tryDescriptors() error {
	// The orphan ends when the write end is closed.
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
