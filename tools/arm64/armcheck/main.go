// Command armcheck is the init, and all else, of a small virtual machine in
// which handoff is tried on another architecture than this one.
//
// As pid 1 it mounts, loads modules, brings lo up, runs itself as "check" and
// powers off. As "ip" and "go" it does the little that the tests ask of those.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
)

// timeout is for failure only; emulation is slow.
const timeout = 120 * time.Second

func main() {
	switch filepath.Base(os.Args[0]) {
	case "init":
		boot()
	case "ip":
		ip(os.Args[1:])
	case "go":
		build(os.Args[1:])
	default:
		check()
	}
}

func must(err error, what string) {
	if err != nil {
		fmt.Printf("INIT %s: %v\n", what, err)
	}
}

func boot() {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
		{"tmpfs", "/tmp", "tmpfs"}, {"devpts", "/dev/pts", "devpts"}, {"tmpfs", "/dev/shm", "tmpfs"}} {
		os.MkdirAll(m[1], 0o755)
		must(unix.Mount(m[0], m[1], m[2], 0, ""), "mount "+m[1])
	}
	os.Chmod("/tmp", 0o1777)
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err == nil {
		for fd := range 3 {
			unix.Dup3(int(console.Fd()), fd, 0)
		}
	}
	os.WriteFile("/proc/sys/kernel/printk", []byte("3"), 0)
	must(loUp(), "lo")
	modules, _ := filepath.Glob("/modules/*.ko")
	for _, m := range modules { // their names are in the order of loading
		f, err := os.Open(m)
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
		}
		must(err, m)
	}
	var u unix.Utsname
	unix.Uname(&u)
	fmt.Printf("VM Linux %s %s, page size %d\n", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), os.Getpagesize())
	os.Setenv("PATH", "/bin:/usr/bin:/usr/sbin:/sbin:/usr/local/bin")
	const n = 1 << 16
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}), "rlimit")
	os.Setenv("HOME", "/root")
	os.Setenv("TMPDIR", "/tmp")
	c := exec.Command("/bin/check", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		must(err, "check")
	} else {
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, 0, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			if pid == c.Process.Pid {
				fmt.Printf("VM check ended with %d\n", ws.ExitStatus())
				break
			}
		}
	}
	unix.Sync()
	time.Sleep(200 * time.Millisecond)
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// ip knows "link set lo up" and "-6 addr add A/N dev lo ...".
func ip(args []string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "ip:", err)
			os.Exit(1)
		}
	}
	switch {
	case slices.Equal(args, []string{"link", "set", "lo", "up"}):
		fail(loUp())
	case len(args) > 5 && args[0] == "-6" && args[2] == "add" && args[5] == "lo":
		p, err := netip.ParsePrefix(args[3])
		fail(err)
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		fail(err)
		req := struct { // struct in6_ifreq
			addr  [16]byte
			bits  uint32
			index int32
		}{p.Addr().As16(), uint32(p.Bits()), 1}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
			fail(errno)
		}
	default:
		fail(fmt.Errorf("not known: %v", args))
	}
}

// build answers "go build ... -o OUT ... PKG" with what was built outside.
func build(args []string) {
	i := slices.Index(args, "-o")
	if i < 0 || args[0] != "build" {
		fmt.Fprintln(os.Stderr, "go: not known:", args)
		os.Exit(1)
	}
	b, err := os.ReadFile(filepath.Join("/prebuilt", filepath.Base(args[len(args)-1])))
	if err == nil {
		err = os.WriteFile(args[i+1], b, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
}

var failed []string

func verdict(what string, ok bool, format string, a ...any) {
	word := "PASS"
	if !ok {
		word = "FAIL"
		failed = append(failed, what)
	}
	fmt.Printf("RESULT %s %s: %s\n", word, what, fmt.Sprintf(format, a...))
}

// bin is where a binary is: CHECK_BIN lets the check run outside the machine.
func bin(name string) string {
	dir := os.Getenv("CHECK_BIN")
	if dir == "" {
		dir = "/bin"
	}
	return filepath.Join(dir, name)
}

func check() {
	want := func(what string) bool {
		return len(os.Args) < 2 || slices.Contains(os.Args[1:], what)
	}
	if want("reload") {
		scenario{name: "bind, fixed port", port: "18080", reloads: 8}.run()
		scenario{name: "bind, port 0", port: "0", reloads: 6}.run()
		scenario{name: "bind, port 0, GODEBUG=multipathtcp=0", port: "0", reloads: 6, env: []string{"GODEBUG=multipathtcp=0"}}.run()
		scenario{name: "bind, sticky", port: "18081", reloads: 6, flags: []string{"--balance", "sticky"}}.run()
		scenario{name: "bind, as nobody (no_new_privs)", port: "18082", reloads: 6, uid: 65534}.run()
		scenario{name: "bind, kept connections and new ones", port: "18083", reloads: 3, mode: load.Mixed, allowLoss: true}.run()
	}
	if want("units") {
		units("/tests", append([]string{"-test.short", "-test.v", "-test.timeout", "20m"}, extra()...)...)
	}
	if want("integration") {
		integration()
	}
	if want("arm32") {
		scenario{name: "a 32-bit program, let through", port: "18084", reloads: 0, server: bin("goserver32"), workers: "1", flags: []string{"--ready-when", "started"}, allowLoss: true}.run()
	}
	fmt.Printf("SUMMARY %d failed %v\n", len(failed), failed)
	if len(failed) > 0 {
		os.Exit(1)
	}
}

type scenario struct {
	name      string
	port      string
	reloads   int
	flags     []string
	env       []string
	uid       uint32
	mode      load.Mode
	server    string
	workers   string
	allowLoss bool
}

type event struct {
	Name      string `json:"event"`
	Level     string `json:"level"`
	Msg       string `json:"msg"`
	Addresses string `json:"addresses"`
}

// logged follows handoff's log.
type logged struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int
	addr   string
	lines  []string
	odd    []string // what is not INFO
	ended  bool
}

func (l *logged) read(r io.Reader) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		var e event
		json.Unmarshal(s.Bytes(), &e)
		l.mu.Lock()
		l.lines = append(l.lines, s.Text())
		if e.Name != "" {
			l.counts[e.Name]++
		}
		if e.Level != "INFO" {
			l.odd = append(l.odd, s.Text())
		}
		if e.Addresses != "" {
			l.addr = e.Addresses
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

func (l *logged) await(name string, n int) error {
	for end := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		have, ended := l.counts[name], l.ended
		l.mu.Unlock()
		switch {
		case have >= n:
			return nil
		case ended:
			return fmt.Errorf("handoff ended while %s %d was awaited", name, n)
		case time.Now().After(end):
			return fmt.Errorf("no %s %d", name, n)
		}
	}
}

func (s scenario) run() {
	if s.server == "" {
		s.server = bin("goserver")
	}
	if s.workers == "" {
		s.workers = "2"
	}
	args := append([]string{"run", "-n", s.workers, "--log", "json", "--drain-timeout", "60s", "--kill-grace", "10s"}, s.flags...)
	cmd := exec.Command(bin("handoff"), append(args, "--", s.server)...)
	cmd.Env = append(append(os.Environ(), "PORT="+s.port, "HOME=/tmp"), s.env...)
	cmd.Dir = "/tmp"
	if s.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.uid}}
	}
	pipe, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		verdict(s.name, false, "%v", err)
		return
	}
	l := &logged{counts: map[string]int{}}
	done := make(chan struct{})
	go func() { l.read(pipe); close(done) }()
	r, err := s.drive(cmd, l)
	if err != nil {
		cmd.Process.Signal(syscall.SIGABRT)
	} else {
		cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-done:
	case <-time.After(timeout):
		err = fmt.Errorf("handoff does not end; %w", err)
		cmd.Process.Kill()
	}
	cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := int64(-1)
	if r != nil {
		lost = r.Lost()
	}
	ok := err == nil && code == 0 && (lost == 0 || s.allowLoss) && (s.port == "0" || s.allowLoss || strings.HasSuffix(l.addr, ":"+s.port))
	verdict(s.name, ok, "held %q, %d reloads, exit code %d, lost %d, error %v", l.addr, l.counts["cluster.reloaded"], code, lost, err)
	if r != nil {
		fmt.Printf("  load: %v\n", r)
	}
	show := l.odd
	if !ok {
		show = l.lines
	}
	for _, line := range show {
		fmt.Println("  log:", line)
	}
}

func (s scenario) drive(cmd *exec.Cmd, l *logged) (*load.Result, error) {
	if err := l.await("cluster.started", 1); err != nil {
		return nil, err
	}
	l.mu.Lock()
	addr, _, _ := strings.Cut(l.addr, " ")
	l.mu.Unlock()
	if addr == "" {
		addr = "127.0.0.1:" + s.port
	}
	for end := time.Now().Add(timeout); ; time.Sleep(50 * time.Millisecond) {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + addr)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "ok\n" {
				return nil, fmt.Errorf("answered %q", body)
			}
			break
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
	run := load.Start(load.Config{Addr: addr, Clients: 8, Mode: s.mode, Timeout: timeout, Pause: 2 * time.Millisecond})
	var err error
	if !run.Await(100, timeout) {
		err = fmt.Errorf("100 requests are not answered")
	}
	for i := 1; i <= s.reloads && err == nil; i++ {
		cmd.Process.Signal(syscall.SIGUSR2)
		if err = l.await("cluster.reloaded", i); err == nil {
			err = l.await("worker.shutdown", 2*i)
		}
		if err == nil && !run.Await(100, timeout) {
			err = fmt.Errorf("no answers after reload %d", i)
		}
	}
	r := run.Stop()
	if err != nil {
		return &r, err
	}
	// The end must not depend on traffic.
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
	}
	return &r, nil
}

// extra is IARGS of the kernel command line: arguments of the tests, with commas.
func extra() []string {
	return strings.FieldsFunc(os.Getenv("IARGS"), func(r rune) bool { return r == ',' })
}

// units runs each test binary of a folder.
func units(dir string, args ...string) {
	tests, _ := filepath.Glob(dir + "/*.test")
	for _, path := range tests {
		work := filepath.Join("/src", strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".test"), "-", "/"))
		c := exec.Command(path, args...)
		c.Dir = work
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		start := time.Now()
		err := c.Run()
		report(filepath.Base(path), out.String(), err, time.Since(start))
	}
}

func report(name, out string, err error, took time.Duration) {
	var pass, fail, skip int
	for line := range strings.Lines(out) {
		t := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(t, "--- PASS"):
			pass++
		case strings.HasPrefix(t, "--- FAIL"):
			fail++
			fmt.Println(" ", t)
		case strings.HasPrefix(t, "--- SKIP"):
			skip++
			fmt.Println(" ", t)
		}
	}
	verdict(name, err == nil, "%d passed, %d failed, %d skipped in %.0fs, error %v", pass, fail, skip, took.Seconds(), err)
	if err != nil {
		fmt.Print(out)
	}
}

// integration runs /itests/integration.test, in a root with the programs.
func integration() {
	c := exec.Command("/itests/integration.test", append([]string{"-test.v", "-test.timeout", "60m"}, extra()...)...)
	c.Dir = "/itests"
	var out bytes.Buffer
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	c.Stdout, c.Stderr = io.MultiWriter(&out, os.Stdout, tickle{&last}), &out
	go watch(&last)
	start := time.Now()
	err := c.Run()
	report("integration", out.String(), err, time.Since(start))
}

type tickle struct{ last *atomic.Int64 }

func (t tickle) Write(p []byte) (int, error) {
	t.last.Store(time.Now().UnixNano())
	return len(p), nil
}

// watch prints what every process waits for, when a test has said nothing for long.
func watch(last *atomic.Int64) {
	for ; ; time.Sleep(time.Second) {
		if time.Since(time.Unix(0, last.Load())) < timeout {
			continue
		}
		last.Store(time.Now().UnixNano())
		tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
		for _, p := range tasks {
			read := func(name string) string {
				b, _ := os.ReadFile(p + "/" + name)
				return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
			}
			if args := read("cmdline"); args != "" {
				fmt.Printf("STUCK %s [%.80s] wchan %s, call %s\n", p, args, read("wchan"), read("syscall"))
			}
		}
		for _, name := range []string{"tcp", "tcp6"} {
			b, _ := os.ReadFile("/proc/net/" + name)
			fmt.Printf("STUCK %s\n", b)
		}
	}
}
