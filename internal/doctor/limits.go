package doctor

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"handoff/internal/cpus"
)

func (m Machine) number(path string) int {
	n, _ := strconv.Atoi(m.Sysctl(path))
	return n
}

func migrateReq(m Machine) Verdict {
	now := m.Sysctl("net/ipv4/tcp_migrate_req")
	v := Verdict{State: Info, What: "net.ipv4.tcp_migrate_req=" + now}
	if now == "0" {
		v.What += ": connections of a socket that is closed are reset by the kernel; handoff does not close sockets, and does not need it"
	}
	return v
}

func backlog(m Machine) Verdict {
	n := m.number("net/core/somaxconn")
	v := Verdict{State: OK, What: fmt.Sprintf("net.core.somaxconn=%d connections may wait at each worker's socket", n)}
	if n < 1024 {
		v.State, v.Advice = Worse, "a burst while workers start is refused sooner: sysctl -w net.core.somaxconn=4096"
	}
	return v
}

func openFiles(m Machine) Verdict {
	soft, hard := m.Files()
	v := Verdict{State: OK, What: fmt.Sprintf("%d, of at most %d", soft, hard)}
	if hard < 4096 {
		v.State, v.Advice = Worse, "each worker takes about 10 of the keeper's, and each connection one of its worker's: ulimit -n 65536, or LimitNOFILE=65536 in the unit"
	}
	return v
}

// watching makes an inotify instance.
func watching(m Machine) Verdict {
	watches, instances := m.number("fs/inotify/max_user_watches"), m.number("fs/inotify/max_user_instances")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return Verdict{Worse, "no more inotify instances: " + err.Error(), "--watch does not work: sysctl -w fs.inotify.max_user_instances=1024"}
	}
	unix.Close(fd)
	v := Verdict{State: OK, What: fmt.Sprintf("%d folders, %d instances for this user (--watch)", watches, instances)}
	if watches < 16384 {
		v.State, v.Advice = Worse, "large trees cannot be watched: sysctl -w fs.inotify.max_user_watches=524288"
	}
	return v
}

func keeperQueue(m Machine) Verdict {
	n := m.number("net/unix/max_dgram_qlen")
	v := Verdict{State: OK, What: fmt.Sprintf("net.unix.max_dgram_qlen=%d", n)}
	if n > 0 && n < 10 {
		v.State, v.Advice = Worse, "a worker that sends many notices may wait for its master: sysctl -w net.unix.max_dgram_qlen=64"
	}
	return v
}

func allowedCPUs(Machine) Verdict {
	return Verdict{State: Info, What: fmt.Sprintf("%d for -n max (affinity and cgroup quota)", cpus.Allowed())}
}
