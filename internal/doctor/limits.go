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
		v.What += ": the kernel resets the queued connections of a closed socket; handoff does not need it, since it keeps sockets open"
	}
	return v
}

func backlog(m Machine) Verdict {
	n := m.number("net/core/somaxconn")
	v := Verdict{State: OK, What: fmt.Sprintf("net.core.somaxconn=%d (connections queued per socket)", n)}
	if n < 1024 {
		v.State, v.Advice = Worse, "a burst of connections can overflow the queue: sysctl -w net.core.somaxconn=4096"
	}
	return v
}

func openFiles(m Machine) Verdict {
	soft, hard := m.Files()
	v := Verdict{State: OK, What: fmt.Sprintf("soft limit %d, hard limit %d", soft, hard)}
	if hard < 4096 {
		v.State, v.Advice = Worse, "the keeper uses about 10 descriptors per worker, and a worker one per connection: ulimit -n 65536, or LimitNOFILE=65536 in the unit"
	}
	return v
}

// watching creates an inotify instance.
func watching(m Machine) Verdict {
	watches, instances := m.number("fs/inotify/max_user_watches"), m.number("fs/inotify/max_user_instances")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return Verdict{Worse, "cannot create an inotify instance: " + err.Error(), "--watch does not work: sysctl -w fs.inotify.max_user_instances=1024"}
	}
	unix.Close(fd)
	v := Verdict{State: OK, What: fmt.Sprintf("at most %d watches and %d instances for this user (--watch)", watches, instances)}
	if watches < 16384 {
		v.State, v.Advice = Worse, "--watch fails for large directory trees: sysctl -w fs.inotify.max_user_watches=524288"
	}
	return v
}

func keeperQueue(m Machine) Verdict {
	n := m.number("net/unix/max_dgram_qlen")
	v := Verdict{State: OK, What: fmt.Sprintf("net.unix.max_dgram_qlen=%d", n)}
	if n > 0 && n < 10 {
		v.State, v.Advice = Worse, "a worker that sends many notices (NOTIFY_SOCKET) can block: sysctl -w net.unix.max_dgram_qlen=64"
	}
	return v
}

func allowedCPUs(Machine) Verdict {
	return Verdict{State: Info, What: fmt.Sprintf("-n max starts %d workers (CPU affinity and cgroup quota)", cpus.Allowed())}
}
