package handoff

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Listeners names the processes that listen on a TCP port of this network
// namespace, as far as this user may see: "nginx (pid 12)". It is for error
// messages; /proc is read (proc(5): net/tcp, PID/fd).
func Listeners(at netip.AddrPort) []string {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line) // 0: 0100007F:1F90 00000000:0000 0A … 9: inode
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == at.Port() {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	var names []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		fds, _ := os.ReadDir("/proc/" + e.Name() + "/fd")
		if slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
			to, _ := os.Readlink("/proc/" + e.Name() + "/fd/" + fd.Name())
			return inodes[to]
		}) {
			comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
			names = append(names, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), e.Name()))
		}
	}
	return names
}
