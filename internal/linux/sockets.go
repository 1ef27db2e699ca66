package linux

import (
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// TCPSocket is a line of /proc/net/tcp or tcp6.
type TCPSocket struct {
	Local, Remote uint16 // ports
	Listening     bool
	Inode         uint64 // 0: no process has it, it is not accepted yet
	UID           int    // of its creator
}

// TCPSockets returns all TCP sockets of this network namespace.
func TCPSockets() iter.Seq[TCPSocket] {
	return func(yield func(TCPSocket) bool) {
		for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
			b, _ := os.ReadFile(file)
			for line := range strings.Lines(string(b)) {
				if s, ok := parseTCP(line); ok && !yield(s) {
					return
				}
			}
		}
	}
}

// parseTCP reads "0: 0100007F:1F90 00000000:0000 0A … inode …" (proc_net_tcp.txt of
// the kernel): 2 local, 3 remote, 4 state, 8 uid, 10 inode.
func parseTCP(line string) (s TCPSocket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	port := func(address string) (uint16, bool) {
		_, hex, _ := strings.Cut(address, ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		return uint16(n), err == nil
	}
	var ok1, ok2 bool
	s.Local, ok1 = port(f[1])
	s.Remote, ok2 = port(f[2])
	s.Listening = f[3] == "0A"
	inode, err := strconv.ParseUint(f[9], 10, 64)
	s.Inode = inode
	uid, uerr := strconv.Atoi(f[7])
	s.UID = uid
	return s, ok1 && ok2 && err == nil && uerr == nil
}

// Sockets returns the sockets of a process, with their inodes, as far as they may be
// read.
func Sockets(pid int) iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		dir := proc(pid) + "/fd/"
		for _, fd := range numbers(dir, 0) {
			if inode := socketInode(dir + strconv.Itoa(fd)); inode != 0 && !yield(fd, inode) {
				return
			}
		}
	}
}

// socketInode is the inode of a socket by its descriptor in /proc; 0 if it is none.
func socketInode(path string) uint64 {
	return parseSocket(link(path))
}

func parseSocket(target string) uint64 {
	number, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return n
}

// SocketOf tells which socket a descriptor of a process is, and of which protocol: "TCP",
// "UDPv6", "UNIX-STREAM". The error of one that is no socket is EINVAL.
func SocketOf(pid, fd int) (inode uint64, protocol string, err error) {
	path := proc(pid) + "/fd/" + strconv.Itoa(fd)
	if inode = socketInode(path); inode == 0 {
		if _, err := os.Readlink(path); err != nil {
			return 0, "", err
		}
		return 0, "", unix.EINVAL
	}
	var name [64]byte
	n, err := unix.Getxattr(path, "system.sockprotoname", name[:])
	if err != nil {
		return 0, "", err
	}
	return inode, strings.TrimRight(string(name[:n]), "\x00"), nil
}

// SocketHolders names the processes that have a socket, as far as this user may see:
// "nginx (pid 12)". It reads all of /proc.
func SocketHolders(inode uint64) (names []string) {
	for _, pid := range PIDs() {
		for _, has := range Sockets(pid) {
			if has == inode {
				comm, _ := os.ReadFile(proc(pid) + "/comm")
				names = append(names, fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(comm)), pid))
				break
			}
		}
	}
	return names
}

// UnixSocket is a line of /proc/net/unix.
type UnixSocket struct {
	Path      string // that it was bound to, or its listener; "": none. Of an abstract name, with @
	Listening bool
	Connected bool
}

// UnixSockets are the unix sockets of this network namespace, by their inodes.
func UnixSockets() map[uint64]UnixSocket {
	b, _ := os.ReadFile("/proc/self/net/unix")
	return parseUnix(string(b))
}

// UnixListeners are the paths of the unix sockets of this network namespace that somebody
// listens on, by their inodes. It is the path that a socket was bound to, also where the
// file was renamed.
func UnixListeners() map[uint64]string {
	all := map[uint64]string{}
	for inode, s := range UnixSockets() {
		if s.Listening && s.Path != "" {
			all[inode] = s.Path
		}
	}
	return all
}

func parseUnix(text string) map[uint64]UnixSocket {
	all := map[uint64]UnixSocket{}
	for line := range strings.Lines(text) {
		// 3 flags (__SO_ACCEPTCON), 5 state (SS_CONNECTED), 6 inode, 7 path.
		w := strings.Fields(line)
		if len(w) < 7 {
			continue
		}
		if inode, err := strconv.ParseUint(w[6], 10, 64); err == nil {
			all[inode] = UnixSocket{strings.Join(w[7:], " "), w[3] == "00010000", w[5] == "03"}
		}
	}
	return all
}

// EphemeralPorts are the first and the last port that the kernel chooses from in this
// network namespace.
func EphemeralPorts() (first, last uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if _, serr := fmt.Sscan(string(b), &first, &last); err != nil || serr != nil {
		return 32768, 60999
	}
	return first, last
}

// MayListFiles reports whether this process may see which files another one has.
func MayListFiles(pid int) bool {
	f, err := os.Open(proc(pid) + "/fd")
	if err != nil {
		return !os.IsPermission(err)
	}
	f.Close()
	return true
}

// Ephemeral reports whether a port is one of those that the kernel chooses for a bind to
// port 0.
func Ephemeral(port uint16) bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	from, to := 32768, 60999
	if err == nil {
		fmt.Sscan(string(b), &from, &to)
	}
	return from <= int(port) && int(port) <= to
}

// OthersHave reports whether a process but this one and the keeper has a socket open, as far
// as this user may see. Those that have outlived their parents are the keeper's children
// (PR_SET_CHILD_SUBREAPER): they and their descendants are looked at first, and if that
// takes more looks than most, the socket counts as open. Others can have it only if it was
// sent to them; they are looked at as well, but if there are too many, it counts as closed:
// a machine may have any number of processes.
func OthersHave(inode uint64, keeper, most int) bool {
	s := openSearch{open: map[uint64]bool{inode: false}, missing: 1, left: most, but: os.Getpid()}
	for _, pid := range Children(keeper) {
		s.process(pid)
	}
	if s.missing == 0 || s.left <= 0 {
		return true
	}
	s.left = most
	for _, pid := range PIDs() {
		if pid != keeper && s.missing > 0 && s.left > 0 {
			s.descriptors(pid)
		}
	}
	return s.missing == 0
}

// OpenSockets reports which of the sockets with these inodes the processes, or descendants
// of them, have open. It inspects at most so many descriptors, threads and processes; if
// there are more, or one may not be inspected, those that were not found count as open.
func OpenSockets(pids []int, inodes []uint64, most int) (open map[uint64]bool) {
	s := openSearch{open: map[uint64]bool{}, left: most}
	for _, inode := range inodes {
		s.open[inode] = false
	}
	if s.missing = len(s.open); s.missing == 0 {
		return s.open
	}
	for _, pid := range pids {
		s.process(pid)
	}
	if s.left <= 0 || s.refused {
		for inode := range s.open {
			s.open[inode] = true
		}
	}
	return s.open
}

// openSearch looks for sockets in processes.
type openSearch struct {
	open    map[uint64]bool // was it found?
	missing int
	left    int  // looks
	refused bool // a process may not be inspected
	but     int  // this one is left out, with its descendants; 0: none
}

func (s *openSearch) process(pid int) {
	if !s.descriptors(pid) {
		return
	}
	tasks := proc(pid) + "/task/"
	for _, tid := range numbers(tasks, max(s.left, 1)) {
		s.left--
		for _, child := range childrenOf(tasks + strconv.Itoa(tid)) {
			if s.left--; s.missing == 0 || s.left <= 0 {
				return
			}
			s.process(child)
		}
	}
}

// descriptors looks at those of one process, and reports whether there is more to look for.
func (s *openSearch) descriptors(pid int) (more bool) {
	if pid == s.but {
		return false
	}
	fds := proc(pid) + "/fd/"
	if err := unix.Access(fds, unix.R_OK|unix.X_OK); err != nil && err != unix.ENOENT {
		s.refused = true
		return false
	}
	s.left--
	for _, fd := range numbers(fds, max(s.left, 1)) {
		if s.left--; s.missing == 0 || s.left <= 0 {
			return false
		}
		inode := socketInode(fds + strconv.Itoa(fd))
		if found, wanted := s.open[inode]; wanted && !found {
			s.open[inode] = true
			s.missing--
		}
	}
	return true
}

// UnprivilegedPort is the first port that every user may bind in this network namespace.
func UnprivilegedPort() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	n, nerr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || nerr != nil {
		return 1024
	}
	return n
}
