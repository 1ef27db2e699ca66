package bindintercept

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"handoff/internal/cmsg"
)

func TestTry(t *testing.T) {
	t.Parallel()
	if err := Try("/proc/self/exe"); err == unix.EPERM || err == unix.ENOSYS {
		t.Skip("the kernel refuses a seccomp notification filter: ", err)
	} else if err != nil {
		t.Error(err)
	}
	if err := Try("/bin/true"); err == nil {
		t.Error("another program has answered")
	}
	if err := Try("/nowhere"); err == nil {
		t.Error("a program that is not there has answered")
	}
}

// What a worker is to start under is so when the program runs.
func TestConditions(t *testing.T) {
	t.Parallel()
	umask, nice := 0o027, 7
	c := Conditions{Umask: &umask, Nice: &nice, Limits: []Limit{{"core", unix.RLIMIT_CORE, 100, 200}}, CPUs: []int{0}, Death: unix.SIGTERM, Parent: os.Getpid()}
	want := "conditions ok nice=7 cpus=1 core=100:200 umask=027"
	if os.Getuid() == 0 {
		c.User = &Identity{UID: 65534, GID: 65533, Groups: []int{65532}}
		want += " uid=65534 gid=65533 groups=[65532]"
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = Args(-1, 1, c, "/proc/self/exe", []string{"program", programWord, "conditions"})
	out, err := cmd.Output()
	if got := string(out); err != nil || !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " death=15 listen=true\n") {
		t.Errorf("%s (%v), want %s …", got, err, want)
	}
}

// A condition that cannot be met ends the worker, with why.
func TestConditionsThatCannotBe(t *testing.T) {
	t.Parallel()
	run := func(c Conditions, path string) (code int, says string) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = Args(-1, 0, c, path, []string{"program"})
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Run()
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
	notExecutable := filepath.Join(t.TempDir(), "x")
	os.WriteFile(notExecutable, nil, 0o644)
	for _, c := range []struct {
		Conditions
		path string
		code int
		says string
	}{
		{Conditions{Cgroup: "/nowhere"}, "/bin/true", 126, "cannot enter the cgroup"},
		{Conditions{Limits: []Limit{{"nofile", unix.RLIMIT_NOFILE, 9, 3}}}, "/bin/true", 126, "cannot set the limit nofile to 9:3"},
		{Conditions{CPUs: []int{1023}}, "/bin/true", 126, "cannot set the CPU affinity to [1023]"},
		{Conditions{Death: unix.SIGTERM, Parent: 1 << 30}, "/bin/true", 126, "the master has already exited"},
		{Conditions{}, "/nowhere", 127, "cannot run /nowhere: no such file"},
		{Conditions{}, notExecutable, 126, "permission denied"},
	} {
		if code, says := run(c.Conditions, c.path); code != c.code || !strings.Contains(says, c.says) {
			t.Errorf("%+v: code %d, %q", c.Conditions, code, says)
		}
	}
}

func TestTrampolineArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"x", "0", "", "/bin/true", "true"}, {"-1", "0", "{", "/bin/true", "true"}} {
		if code := Trampoline(args); code != 2 {
			t.Errorf("%q: code %d", args, code)
		}
	}
	if s := (Limit{Soft: 3, Hard: unix.RLIM_INFINITY}).String(); s != "3:unlimited" {
		t.Error(s)
	}
}

// The trampoline in this process: on a thread that ends with the test, up to the
// program, which is not there.
func TestTrampolineSendsItsFilter(t *testing.T) {
	ours, theirs, err := cmsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd := duplicate(int(theirs.Fd()))
	theirs.Close()
	code := make(chan int)
	go func() {
		runtime.LockOSThread()
		code <- Trampoline(Args(fd, 1, Conditions{}, "/nowhere", []string{"program"})[2:])
	}()
	if got := <-code; got != 127 {
		t.Errorf("code %d", got)
	}
	filter, refused, err := ReadFilter(ours)
	if err != nil || (filter >= 0) != (refused == 0) {
		t.Errorf("%d, %v, %v", filter, refused, err)
	}
	if filter >= 0 {
		unix.Close(filter)
	}
	if _, _, err := ReadFilter(ours); err == nil {
		t.Error("read beyond the end")
	}
}

func TestReadFilter(t *testing.T) {
	for _, c := range []struct {
		send    []byte
		fds     int
		refused unix.Errno
		fails   bool
	}{
		{binary.NativeEndian.AppendUint32(nil, uint32(unix.EPERM)), 0, unix.EPERM, false},
		{make([]byte, 4), 0, unix.EBADF, false},
		{make([]byte, 2), 1, 0, true},
		{make([]byte, 4), 2, 0, false},
	} {
		ours, file, err := cmsg.Pair()
		if err != nil {
			t.Fatal(err)
		}
		fds := []int{0, 1}[:c.fds]
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		unix.Sendmsg(int(file.Fd()), c.send, rights, nil, 0)
		fd, refused, err := ReadFilter(ours)
		if refused != c.refused || (err != nil) != c.fails || (fd >= 0) != (c.fds == 2) {
			t.Errorf("%v with %d descriptors: %d, %v, %v", c.send, c.fds, fd, refused, err)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		ours.Close()
		file.Close()
	}
}
