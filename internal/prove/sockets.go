package prove

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// connection is one side of a TCP connection of this machine.
type connection struct {
	remote string // port of the other side
	inode  string // "0": nobody has accepted it
}

// connections reads /proc/net/tcp and tcp6 (proc_net_tcp.txt of the kernel). Both ends
// are on this machine, so that a port says enough.
func connections() (all []connection) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // the heading
		for lines.Scan() {
			w := strings.Fields(lines.Text()) // sl local remote state … inode at 9
			if len(w) < 10 {
				continue
			}
			_, hex, _ := strings.Cut(w[2], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil || port == 0 {
				continue
			}
			all = append(all, connection{remote: strconv.FormatUint(port, 10), inode: w[9]})
		}
		f.Close()
	}
	return all
}

// socketsOf are the inodes of a process's sockets.
func socketsOf(pid int) map[string]bool {
	inodes := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		target, _ := os.Readlink(dir + e.Name())
		if rest, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(rest, "]")] = true
		}
	}
	return inodes
}

// stopped waits until every thread of a process has stopped.
func stopped(ctx context.Context, pid int) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for ctx.Err() == nil {
		running := false
		dir := fmt.Sprintf("/proc/%d/task/", pid)
		tasks, _ := os.ReadDir(dir)
		for _, t := range tasks {
			b, _ := os.ReadFile(dir + t.Name() + "/stat")
			_, rest, _ := strings.Cut(string(b), ") ")
			running = running || rest != "" && rest[0] != 'T' && rest[0] != 't' && rest[0] != 'Z'
		}
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
