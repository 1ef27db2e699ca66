package linux

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Stat has the fields of /proc/PID/stat.
type Stat struct {
	PID     int
	Name    string // of the program, up to 15 bytes of any value
	State   byte   // R, S, D, T, t, Z, X, I
	Parent  int
	Group   int // process group
	Session int
	Threads int
	Start   uint64        // ticks from the machine's start to the process's: identifies it together with the PID
	CPU     time.Duration // user and system, in ticks of 10 ms
	RSS     int64         // resident memory in bytes, including shared memory
}

var errStat = errors.New("not a line of /proc/PID/stat")

// tick is USER_HZ, 100 on every Linux that Go runs on.
const tick = time.Second / 100

// ParseStat reads a line of /proc/PID/stat (proc_pid_stat(5)): 1 pid, 2 (name),
// 3 state, 4 parent, 5 group, 6 session … 14 utime, 15 stime … 20 threads … 22 start … 24 resident pages.
func ParseStat(line string) (s Stat, err error) {
	from, to := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if from < 1 || to < from {
		return s, errStat
	}
	f := strings.Fields(line[to+1:]) // from the 3rd on
	if len(f) < 22 || len(f[0]) != 1 {
		return s, errStat
	}
	var errs [9]error
	s.Name, s.State = line[from+1:to], f[0][0]
	s.PID, errs[0] = strconv.Atoi(strings.TrimSpace(line[:from]))
	s.Parent, errs[1] = strconv.Atoi(f[1])
	s.Group, errs[2] = strconv.Atoi(f[2])
	s.Session, errs[7] = strconv.Atoi(f[3])
	utime, err := strconv.ParseUint(f[11], 10, 63)
	errs[3] = err
	stime, err := strconv.ParseUint(f[12], 10, 63)
	errs[4] = err
	s.Threads, errs[8] = strconv.Atoi(f[17])
	s.Start, errs[5] = strconv.ParseUint(f[19], 10, 64)
	pages, err := strconv.ParseInt(f[21], 10, 64)
	errs[6] = err
	if errors.Join(errs[:]...) != nil {
		return Stat{}, errStat
	}
	const most = uint64(math.MaxInt64 / tick)
	s.CPU = time.Duration(min(utime, most/2)+min(stime, most/2)) * tick
	s.RSS = max(min(pages, math.MaxInt64/int64(os.Getpagesize())), 0) * int64(os.Getpagesize())
	return s, nil
}

// ReadStat reads the Stat of a process. The error for one that does not exist is
// fs.ErrNotExist.
func ReadStat(pid int) (Stat, error) { return readStat(proc(pid) + "/stat") }

func readStat(path string) (Stat, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(string(b))
}

// Processes returns all visible processes, in the order of their pids. One that exits in
// the meantime is skipped.
func Processes() iter.Seq[Stat] {
	return func(yield func(Stat) bool) {
		for _, pid := range numbers("/proc", 0) {
			if s, err := ReadStat(pid); err == nil && !yield(s) {
				return
			}
		}
	}
}

// PIDs returns the visible pids, in order.
func PIDs() []int { return numbers("/proc", 0) }

// Threads returns the Stat of each thread of a process; PID is the thread's id.
func Threads(pid int) iter.Seq[Stat] {
	return func(yield func(Stat) bool) {
		dir := proc(pid) + "/task/"
		for _, tid := range numbers(dir, 0) {
			if s, err := readStat(dir + strconv.Itoa(tid) + "/stat"); err == nil && !yield(s) {
				return
			}
		}
	}
}

// Children returns the children of a process that have not been reaped, of its first 4096
// threads.
func Children(pid int) []int {
	var all []int
	dir := proc(pid) + "/task/"
	for _, tid := range numbers(dir, 1<<12) {
		all = append(all, childrenOf(dir+strconv.Itoa(tid))...)
	}
	return all
}

func childrenOf(task string) (pids []int) {
	b, _ := os.ReadFile(task + "/children")
	return parseChildren(string(b))
}

func parseChildren(text string) (pids []int) {
	for word := range strings.FieldsSeq(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Descends reports whether a process is ancestor, or comes from it.
func Descends(pid, ancestor int) bool {
	for range maxLineage {
		if pid == ancestor {
			return pid > 0
		}
		s, err := ReadStat(pid)
		if err != nil {
			return false
		}
		pid = s.Parent
	}
	return false
}

// LeftBehind reports whether a process, or one that it comes from, is in a group and has
// outlived its parent: it is a child of reaper (PR_SET_CHILD_SUBREAPER). The group alone
// says nothing, since whoever is in the session can join it (setpgid(2)).
func LeftBehind(pid, group, reaper int) bool {
	for range maxLineage {
		s, err := ReadStat(pid)
		if err != nil || pid == reaper {
			return false
		}
		if s.Parent == reaper {
			return s.Group == group
		}
		pid = s.Parent
	}
	return false
}

// maxLineage is how many processes are looked at, from one to its ancestors.
const maxLineage = 64

// Environ is the environment that a process was started with; nil if it may not be read.
func Environ(pid int) []string { return zeroed(proc(pid) + "/environ") }

// Arguments is the command line of a process, with the program's name; nil if it has
// none, or is dead.
func Arguments(pid int) []string { return zeroed(proc(pid) + "/cmdline") }

// zeroed reads a file of zero-terminated strings.
func zeroed(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return nil
	}
	return splitZeros(string(b))
}

func splitZeros(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
}

// Lookup returns the value of a variable in an environment, "" if it is not there.
func Lookup(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// Image is the path of the file that a process executes, and Directory where it is.
// Both are "" where they may not be read.
func Image(pid int) string     { return link(proc(pid) + "/exe") }
func Directory(pid int) string { return link(proc(pid) + "/cwd") }

func link(path string) string {
	to, _ := os.Readlink(path)
	return to
}

// OpenImage opens the file that a process executes, also if it was removed or replaced.
// The caller closes it.
func OpenImage(pid int) (*os.File, error) { return os.Open(proc(pid) + "/exe") }

// SeccompFilters is how many filters of system calls a process has (Linux 5.9). It gets
// those of its parent, and never loses one.
func SeccompFilters(pid int) (int, error) { return field(proc(pid)+"/status", "Seccomp_filters:", 10) }

// Ends reports whether a signal ends a process: it neither catches nor ignores it.
func Ends(pid int, s syscall.Signal) (bool, error) {
	b, err := os.ReadFile(proc(pid) + "/status")
	if err != nil {
		return false, err
	}
	return parseEnds(string(b), s)
}

func parseEnds(text string, s syscall.Signal) (bool, error) {
	handled := uint64(0)
	for _, name := range []string{"SigIgn:", "SigCgt:"} {
		_, rest, ok := strings.Cut(text, "\n"+name)
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
		if !ok || err != nil {
			return false, fmt.Errorf("there is no %s", name)
		}
		handled |= n
	}
	return s > 0 && s <= 64 && handled>>(s-1)&1 == 0, nil
}

// ThreadGroup is the pid of a thread's process.
func ThreadGroup(tid int) (int, error) { return field(proc(tid)+"/status", "Tgid:", 10) }

// DescriptorFlags are the flags of a descriptor of another process, with O_CLOEXEC
// among them if it is.
func DescriptorFlags(pid, fd int) (int, error) {
	return field(proc(pid)+"/fdinfo/"+strconv.Itoa(fd), "flags:", 8)
}

// field reads a number from a file of "name: value" lines.
func field(path, name string, base int) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := parseField(string(b), name, base)
	if err != nil {
		err = fmt.Errorf("cannot read %s: %w", path, err)
	}
	return n, err
}

func parseField(text, name string, base int) (int, error) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), base, 0)
			if err != nil {
				return 0, err
			}
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("there is no %s", name)
}

func proc(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// numbers are the names in a folder that are numbers; of a folder that has more
// than most names, of as many (0: any).
func numbers(dir string, most int) (all []int) {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(most) // proc(5) has them in order
	if err != nil && err != io.EOF {
		return nil
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all
}
