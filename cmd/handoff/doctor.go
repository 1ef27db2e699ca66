package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"handoff/handoff"
	"handoff/internal/admin"
	"handoff/internal/cpus"
	"handoff/internal/seat"
	"handoff/sdk/node"
)

// finding is what one look at the machine has come to.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"` // ok, worse (it works, with less), missing (something does not work), info
	What   string `json:"what"`
	Advice string `json:"advice,omitempty"`
}

const (
	stateOK      = "ok"
	stateWorse   = "worse"
	stateMissing = "missing"
	stateInfo    = "info"
)

func doctorCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lets handoff do",
		Long: `Try what handoff needs of this machine, as this user, and say what each means and what to do about it.
Nothing that runs is touched. Exit code: 0 everything that is needed is there; 1 something is missing.`,
		Example: `  handoff doctor
  handoff doctor --json | jq '.findings[] | select(.state != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all := examine()
			missing := false
			for _, f := range all {
				missing = missing || f.State == stateMissing
			}
			if asJSON {
				printJSON(map[string]any{"schema": 1, "findings": all})
			} else {
				for _, f := range all {
					fmt.Printf("%-8s %-22s %s\n", f.State, f.Name, f.What)
					if f.Advice != "" {
						fmt.Printf("%-8s %-22s   → %s\n", "", "", f.Advice)
					}
				}
			}
			if missing {
				return failed{nil}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func examine() (all []finding) {
	for _, look := range []func() finding{lookKernel, lookSteering, lookFilter, lookPidfd, lookMigrate, lookBacklog, lookFiles, lookInotify, lookYama,
		lookQueue, lookCPUs, lookRuntime, lookState, lookNode} {
		all = append(all, look())
	}
	return all
}

func lookKernel() finding {
	f := finding{"kernel", stateOK, "Linux " + release(), ""}
	switch major, minor := kernel(); {
	case major < 5 || major == 5 && minor < 9:
		f.State, f.Advice = stateMissing, "handoff needs Linux 5.9 or later (pidfds, seccomp's notifications that hand out descriptors)"
	case major < 6 || major == 6 && minor < 9:
		f.State, f.Advice = stateWorse, "from Linux 6.9 on, whole process groups are signalled by pidfd, and the end of adopted workers is known"
	}
	return f
}

func release() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

func kernel() (major, minor int) {
	fmt.Sscanf(release(), "%d.%d", &major, &minor)
	return major, minor
}

// lookSteering attaches a program as a master would.
func lookSteering() finding {
	f := finding{"steering", stateOK, "the kernel takes programs that choose the socket (SO_ATTACH_REUSEPORT_CBPF)", ""}
	watch, err := handoff.NewWatch()
	if err == nil {
		defer watch.Close()
		var g *handoff.Group
		g, err = handoff.Listen(handoff.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Watch: watch})
		if err == nil {
			defer g.Close()
			if g.Steerable() {
				return f
			}
		}
	}
	f.State, f.What = stateWorse, "the kernel refuses programs that choose the socket"
	if err != nil {
		f.What = "sockets cannot be shared: " + err.Error()
	}
	f.Advice = "connections are spread by the kernel's hash, and generations overlap on their sockets; gVisor and old kernels are like that"
	return f
}

// lookFilter runs a program behind the trampoline's filter.
func lookFilter() finding {
	f := finding{"bind contract", stateOK, "bind and listen of any program can be answered (seccomp user notification)", ""}
	if err := seat.Try("/proc/self/exe"); err != nil {
		f.State, f.What = stateWorse, "seccomp user notification is refused: "+err.Error()
		f.Advice = "programs other than node need --listen ADDR and LISTEN_FDS (the activation contract); in a container, its seccomp profile refuses it"
	}
	return f
}

func lookPidfd() finding {
	f := finding{"pidfd", stateOK, "processes are watched and signalled by descriptor, and how they ended is known", ""}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return finding{"pidfd", stateMissing, "pidfd_open is refused: " + err.Error(), "handoff cannot watch its workers; a container's seccomp profile may refuse it"}
	}
	defer unix.Close(fd)
	if major, minor := kernel(); major < 6 || major == 6 && minor < 15 {
		f.State, f.What = stateWorse, "processes are watched and signalled by descriptor; how a worker ended that a master before had started is not told"
		f.Advice = "from Linux 6.15 on a new master says with which code a worker of the one before ended"
	}
	return f
}

func lookMigrate() finding {
	f := finding{"tcp_migrate_req", stateOK, "net.ipv4.tcp_migrate_req=" + sysctl("net/ipv4/tcp_migrate_req"), ""}
	if sysctl("net/ipv4/tcp_migrate_req") == "0" {
		f.What += ": connections of a socket that is closed are reset by the kernel; handoff does not close sockets, and does not need it"
	}
	f.State = stateInfo
	return f
}

func lookBacklog() finding {
	n, _ := strconv.Atoi(sysctl("net/core/somaxconn"))
	f := finding{"backlog", stateOK, fmt.Sprintf("net.core.somaxconn=%d connections may wait at each worker's socket", n), ""}
	if n < 1024 {
		f.State, f.Advice = stateWorse, "a burst while workers start is refused sooner: sysctl -w net.core.somaxconn=4096"
	}
	return f
}

func lookFiles() finding {
	var l unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	f := finding{"open files", stateOK, fmt.Sprintf("%d, of at most %d", l.Cur, l.Max), ""}
	if l.Max < 4096 {
		f.State, f.Advice = stateWorse, "each worker takes about 10 of the keeper's, and each connection one of its worker's: ulimit -n 65536, or LimitNOFILE=65536 in the unit"
	}
	return f
}

func lookInotify() finding {
	watches, _ := strconv.Atoi(sysctl("fs/inotify/max_user_watches"))
	instances, _ := strconv.Atoi(sysctl("fs/inotify/max_user_instances"))
	f := finding{"watching files", stateOK, fmt.Sprintf("%d folders, %d instances for this user (--watch)", watches, instances), ""}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
		f.State, f.What, f.Advice = stateWorse, "no more inotify instances: "+err.Error(), "--watch does not work: sysctl -w fs.inotify.max_user_instances=1024"
	} else {
		unix.Close(fd)
		if watches < 16384 {
			f.State, f.Advice = stateWorse, "large trees cannot be watched: sysctl -w fs.inotify.max_user_watches=524288"
		}
	}
	return f
}

func lookYama() finding {
	scope := sysctl("kernel/yama/ptrace_scope")
	f := finding{"descriptors", stateOK, "sockets of workers can be taken back after everything else was killed (pidfd_getfd)", ""}
	if scope != "" && scope != "0" && os.Geteuid() != 0 {
		f.State, f.What = stateWorse, "kernel.yama.ptrace_scope="+scope+": if keeper and master are killed at once, the next start cannot take the sockets back from the workers"
		f.Advice = "under systemd it does not matter (its fd store has them); else run handoff as root with --user, or sysctl -w kernel.yama.ptrace_scope=0"
	}
	return f
}

func lookQueue() finding {
	n, _ := strconv.Atoi(sysctl("net/unix/max_dgram_qlen"))
	f := finding{"keeper's queue", stateOK, fmt.Sprintf("net.unix.max_dgram_qlen=%d", n), ""}
	if n > 0 && n < 10 {
		f.State, f.Advice = stateWorse, "a worker that says much may wait for its master: sysctl -w net.unix.max_dgram_qlen=64"
	}
	return f
}

func lookCPUs() finding {
	return finding{"CPUs", stateInfo, fmt.Sprintf("%d for -n max (affinity and cgroup quota)", cpus.Allowed()), ""}
}

func lookRuntime() finding {
	f := finding{"control socket", stateOK, admin.Dir(), ""}
	if err := admin.CheckDir(); err != nil {
		f.State, f.What = stateWorse, err.Error()
		f.Advice = "handoff status and its like will not find what runs: set HANDOFF_RUNTIME_DIR to a folder of this user"
	}
	return f
}

func lookState() finding {
	path, err := node.Install()
	if err != nil {
		return finding{"drain preload", stateWorse, err.Error(), "keep-alive clients of Node programs may lose a request at a reload: set HANDOFF_STATE_DIR to a folder that can be written to"}
	}
	return finding{"drain preload", stateOK, path, ""}
}

func lookNode() finding {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "-p", "process.version").Output()
	if err != nil {
		return finding{"node", stateInfo, "not in PATH; other programs do not need it", ""}
	}
	version := strings.TrimSpace(string(out))
	f := finding{"node", stateOK, version, ""}
	var major int
	fmt.Sscanf(version, "v%d.", &major)
	if major < 18 {
		f.State, f.Advice = stateWorse, "handoff is tested with Node 18 and later; before 18.2 Node leaves idle keep-alive connections open in a drain"
	}
	return f
}

// sysctl reads one; "" if there is none.
func sysctl(path string) string {
	b, _ := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b))
}
