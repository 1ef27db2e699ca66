package config

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/internal/cpus"
)

// Start is the start conditions of workers; see Run.Conditions.
type Start struct {
	User, Group string
	Umask       string
	Nice        string
	Limits      []string
	CPUs        string
	Cgroup      string
	Death       string
}

// limits are the names of setrlimit(2)'s resources, as systemd and prlimit(1) have
// them.
var limits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// Conditions returns the start conditions of workers.
func (s *Start) Conditions() (c bindintercept.Conditions, err error) {
	if c.User, _, err = s.identity(); err != nil {
		return c, err
	}
	if s.Umask != "" {
		n, err := strconv.ParseUint(s.Umask, 8, 12)
		if err != nil || n > 0o777 {
			return c, fmt.Errorf("invalid --umask %q: want three octal digits, like 027", s.Umask)
		}
		mask := int(n)
		c.Umask = &mask
	}
	if s.Nice != "" {
		n, err := strconv.Atoi(s.Nice)
		if err != nil || n < -20 || n > 19 {
			return c, fmt.Errorf("invalid --nice %q: want a number from -20 (first) to 19 (last)", s.Nice)
		}
		c.Nice = &n
	}
	for _, text := range s.Limits {
		l, err := limitOf(text)
		if err != nil {
			return c, err
		}
		c.Limits = append(c.Limits, l)
	}
	if s.CPUs != "" {
		if c.CPUs, err = cpuList(s.CPUs); err != nil {
			return c, err
		}
	}
	if s.Cgroup != "" {
		if c.Cgroup, err = cgroupOf(s.Cgroup); err != nil {
			return c, err
		}
	}
	if s.Death != "" {
		name := strings.TrimPrefix(strings.ToUpper(s.Death), "SIG")
		if c.Death = unix.SignalNum("SIG" + name); c.Death == 0 {
			return c, fmt.Errorf("invalid --pdeathsig %q: want a signal, like TERM", s.Death)
		}
	}
	return c, nil
}

// identity looks up the user of the workers, and that user's environment.
func (s *Start) identity() (id *bindintercept.Identity, env []string, err error) {
	name, group, both := strings.Cut(s.User, ":")
	if both && s.Group != "" {
		return nil, nil, fmt.Errorf("--user %s and --group %s: give the group only once", s.User, s.Group)
	}
	if !both {
		group = s.Group
	}
	if name == "" && group == "" {
		return nil, nil, nil
	}
	id = &bindintercept.Identity{UID: os.Getuid(), GID: os.Getgid()}
	if name != "" {
		u, err := user.Lookup(name)
		if _, nerr := strconv.Atoi(name); err != nil && nerr == nil {
			u, err = user.LookupId(name)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("invalid --user: unknown user %s", name)
		}
		id.UID, _ = strconv.Atoi(u.Uid)
		id.GID, _ = strconv.Atoi(u.Gid)
		groups, err := u.GroupIds()
		if err != nil {
			return nil, nil, fmt.Errorf("cannot find the groups of %s: %w", name, err)
		}
		for _, g := range groups {
			if n, err := strconv.Atoi(g); err == nil {
				id.Groups = append(id.Groups, n)
			}
		}
		env = []string{"USER=" + u.Username, "LOGNAME=" + u.Username, "HOME=" + u.HomeDir}
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if _, nerr := strconv.Atoi(group); err != nil && nerr == nil {
			g, err = user.LookupGroupId(group)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("invalid --group: unknown group %s", group)
		}
		id.GID, _ = strconv.Atoi(g.Gid)
		if !slices.Contains(id.Groups, id.GID) {
			id.Groups = append(id.Groups, id.GID)
		}
	}
	if os.Geteuid() != 0 && id.UID == os.Getuid() && id.GID == os.Getgid() {
		return nil, env, nil // already the case
	}
	if os.Geteuid() != 0 && (id.UID != os.Getuid() || id.GID != os.Getgid()) {
		return nil, nil, errors.New("--user and --group require root: start handoff as root, or as that user without them")
	}
	return id, env, nil
}

// Environ is the login environment of the user of --user; nil without one.
func (s *Start) Environ() []string {
	_, env, _ := s.identity()
	return env
}

// limitOf reads NAME=SOFT[:HARD].
func limitOf(text string) (l bindintercept.Limit, err error) {
	name, value, ok := strings.Cut(text, "=")
	resource, known := limits[strings.ToLower(name)]
	if !ok || !known {
		return l, fmt.Errorf("invalid --rlimit %q: want NAME=SOFT or NAME=SOFT:HARD, like nofile=65536; the names are those of prlimit(1)", text)
	}
	l = bindintercept.Limit{Name: strings.ToLower(name), Resource: resource}
	soft, hard, two := strings.Cut(value, ":")
	if !two {
		hard = soft
	}
	number := func(s string) (uint64, error) {
		if s == "unlimited" || s == "infinity" {
			return unix.RLIM_INFINITY, nil
		}
		return strconv.ParseUint(s, 10, 63)
	}
	var err1, err2 error
	l.Soft, err1 = number(soft)
	l.Hard, err2 = number(hard)
	if err1 != nil || err2 != nil || l.Soft > l.Hard {
		return l, fmt.Errorf("invalid --rlimit %q: want a number or unlimited, the soft limit not above the hard one", text)
	}
	return l, nil
}

// cpuList reads 0-3,6, or auto: all that this process may use.
func cpuList(text string) (list []int, err error) {
	allowed := cpus.List()
	if text == "auto" {
		return allowed, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, two := strings.Cut(part, "-")
		if !two {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 8191 {
			return nil, fmt.Errorf("invalid --cpu-affinity %q: want CPUs like 0-3 or 0,2,4, or auto", text)
		}
		for n := a; n <= b; n++ {
			if !slices.Contains(allowed, n) {
				return nil, fmt.Errorf("invalid --cpu-affinity %q: CPU %d is not available to handoff", text, n)
			}
			list = append(list, n)
		}
	}
	return list, nil
}

// cgroupOf finds a cgroup of version 2 for the workers: by its path from the root of
// the hierarchy, or below handoff's own, where that is delegated.
func cgroupOf(name string) (dir string, err error) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	text, _ := os.ReadFile("/proc/self/cgroup")
	return cgroupIn(string(mounts), string(text), name)
}

func cgroupIn(mounts, cgroups, name string) (dir string, err error) {
	root := ""
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			root = unescapeMount(f[1])
		}
	}
	if root == "" {
		return "", errors.New("--cgroup: no cgroup v2 hierarchy is mounted")
	}
	own := "/"
	for line := range strings.Lines(cgroups) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSuffix(path, "\n")
		}
	}
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("invalid --cgroup %q: want a name like workers, below handoff's own cgroup, or a path from the root", name)
		}
	}
	if filepath.IsAbs(name) {
		return filepath.Join(root, name), nil
	}
	if slices.Contains(strings.Split(own, "/"), "..") { // as cgroup_namespaces(7) shows it
		return "", fmt.Errorf("--cgroup %s: handoff's own cgroup is outside of its cgroup namespace: give a path from the root, like /%s", name, name)
	}
	return filepath.Join(root, own, name), nil
}

// unescapeMount is a path of /proc/self/mounts, where \040 is a blank.
func unescapeMount(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// MakeCgroup makes the cgroup of --cgroup, if it is not there.
func (s *Start) MakeCgroup() error {
	c, err := s.Conditions()
	if err != nil || c.Cgroup == "" {
		return err
	}
	if err := os.MkdirAll(c.Cgroup, 0o755); err != nil {
		return fmt.Errorf("--cgroup: cannot create it: %w (is the cgroup delegated? systemd: Delegate=yes)", err)
	}
	return nil
}
