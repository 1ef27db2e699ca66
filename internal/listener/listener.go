// Package listener says who has a TCP port, and how to end it, for error messages. It
// reads all of /proc.
package listener

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"handoff/internal/linux"
)

// Process is one that listens.
type Process struct {
	PID     int
	Command string // with its arguments, printable
	Control string // path of the control socket that it serves; "": it is no master
}

// On are the processes that listen on a port of this network namespace, as far as this
// user may see them, and the owners of sockets of which none can be seen.
func On(port uint16) (all []Process, unseen []string) {
	sockets := map[uint64]int{} // uid by inode
	for s := range linux.TCPSockets() {
		if s.Listening && s.Local == port {
			sockets[s.Inode] = s.UID
		}
	}
	if len(sockets) == 0 {
		return nil, nil
	}
	paths, seen := linux.UnixListeners(), map[uint64]bool{}
	for _, pid := range linux.PIDs() {
		has, control := false, ""
		for _, inode := range linux.Sockets(pid) {
			if _, ok := sockets[inode]; ok {
				has, seen[inode] = true, true
			}
			if path := paths[inode]; strings.Contains(path, ".sock") {
				control = path
			}
		}
		if has {
			all = append(all, Process{pid, command(pid), control})
		}
	}
	for inode, uid := range sockets {
		if !seen[inode] {
			unseen = append(unseen, name(uid))
		}
	}
	slices.Sort(unseen)
	return all, slices.Compact(unseen)
}

func name(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(uid)
}

// maxCommand is how much of a command line is shown, maxShown how many processes are.
const (
	maxCommand = 60
	maxShown   = 3
)

func command(pid int) string {
	args := linux.Arguments(pid)
	if len(args) == 0 {
		s, _ := linux.ReadStat(pid)
		args = []string{s.Name}
	}
	args[0] = filepath.Base(args[0])
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.TrimSpace(strings.ToValidUTF8(strings.Join(args, " "), "?")))
	if utf8.RuneCountInString(text) > maxCommand {
		text = string([]rune(text)[:maxCommand-1]) + "…"
	}
	return text
}

// Who says who listens on a port: a service of handoff, which is named with the command
// that stops it, or processes.
func Who(port uint16) string {
	all, unseen := On(port)
	for _, p := range all {
		if dir, service := serviceOf(p.Control); service != "" {
			stop := "handoff stop " + service
			if !slices.Contains(usual(service), dir) {
				stop = "HANDOFF_RUNTIME_DIR=" + dir + " " + stop
			}
			return fmt.Sprintf("the handoff service %s listens there (`%s` stops it)", service, stop)
		}
	}
	var names []string
	for _, p := range all[:min(len(all), maxShown)] {
		names = append(names, fmt.Sprintf("%s (pid %d)", p.Command, p.PID))
	}
	if n := len(all) - maxShown; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	for _, of := range unseen {
		names = append(names, "a process of "+of+", which this user may not inspect,")
	}
	if len(names) == 0 {
		return "a process that handoff may not inspect listens there"
	}
	return strings.Join(names, ", ") + " listens there"
}

// serviceOf takes the path at which a control socket was bound apart, DIR/NAME.sock.PID:
// it was renamed then. service is "" for another socket.
func serviceOf(path string) (dir, service string) {
	m := regexp.MustCompile(`^(/[-\w./]+)/(\w[-\w.]{0,63})\.sock\.\d+$`).FindStringSubmatch(path)
	if m == nil {
		return "", ""
	}
	return m[1], m[2]
}

// usual are the folders in which a client of this user looks without being told.
func usual(service string) []string {
	if dir := os.Getenv("HANDOFF_RUNTIME_DIR"); dir != "" {
		return []string{dir}
	}
	uid := strconv.Itoa(os.Geteuid())
	all := []string{"/run/handoff/" + service, "/tmp/handoff-" + uid, "/dev/shm/handoff-" + uid, "/run/user/" + uid + "/handoff"}
	if uid == "0" {
		return append(all, "/run/handoff")
	}
	return append(all, os.Getenv("XDG_RUNTIME_DIR")+"/handoff")
}

// Reason is why a program that has ended in its start cannot listen: somebody else does. It
// was told so, which is refused, or has bound the address itself, and says so in the last
// lines of its stderr; "": that is not why.
func Reason(refused string, stderr []string) string {
	port, ok := Complaint(stderr)
	switch {
	case refused != "" || !ok:
		return refused
	case port == 0:
		return "address already in use, as the last lines of its stderr say"
	}
	return fmt.Sprintf("cannot bind port %d: address already in use: %s", port, Who(port))
}

// Complaint reports whether a program that ends has said that an address is in use, and which
// port that is; 0: it does not say.
//
//	Error: listen EADDRINUSE: address already in use :::3000
//	listen tcp 127.0.0.1:3000: bind: address already in use
//	nginx: [emerg] bind() to 0.0.0.0:3000 failed (98: Address already in use)
//	OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 3000): address already in use
func Complaint(lines []string) (port uint16, ok bool) {
	number := regexp.MustCompile(`(?::|', |[Pp]ort:? )(\d{1,5})\b`)
	find := func(line string) {
		for _, m := range number.FindAllStringSubmatch(line, -1) {
			if n, err := strconv.ParseUint(m[1], 10, 16); err == nil && n > 0 { // the last: there may be a time before it
				port = uint16(n)
			}
		}
	}
	for _, line := range lines {
		if lower := strings.ToLower(line); strings.Contains(lower, "eaddrinuse") || strings.Contains(lower, "address already in use") || strings.Contains(lower, "address in use") {
			ok = true
			find(line)
		}
	}
	if ok && port == 0 { // Node has it in a line of its own: "port: 3000"
		for _, line := range lines {
			if strings.HasPrefix(strings.TrimSpace(line), "port: ") {
				find(line)
			}
		}
	}
	return port, ok
}
