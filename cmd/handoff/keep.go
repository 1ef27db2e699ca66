package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/admin"
	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/config"
	"handoff/internal/keeper"
	"handoff/internal/keeper/fdstore"
	"handoff/internal/linux"
	"handoff/internal/pidfile"
	"handoff/internal/service"
)

// keep runs the keeper, until the master ends intentionally.
func keep(cfg *config.Run, what service.Program, kept, passed []cmsg.Named) (code int, err error) {
	if err := linux.CheckPidfd(); err != nil { // else each master would die of it
		return 0, failed{err}
	}
	if path := what.Path(cfg.PIDFile); path != "" {
		remove, err := pidfile.Write(path)
		if err != nil {
			return 0, failed{err}
		}
		defer remove()
	}
	path, err := binary()
	if err != nil {
		return 0, failed{err}
	}
	// Masters start in a directory that always exists, and know the original one.
	text, err := what.Encode()
	if err == nil {
		err = os.Setenv(envProgram, string(text))
	}
	if err != nil {
		return 0, failed{err}
	}
	dir, err := runtimeDir()
	if err != nil {
		return 0, failed{err}
	}
	if err := os.Chdir("/"); err != nil {
		return 0, failed{err}
	}
	os.Unsetenv(envReplaces)
	if cfg.Embedded {
		if err := endWithParent(); err != nil {
			return 0, failed{err}
		}
	}
	shrinkHeap()
	waits, err := keeper.ParseWaits(os.Getenv(envWaits))
	if err != nil {
		return 0, failed{err}
	}
	return keeper.Run(keeper.Config{Path: path, Args: append([]string{masterWord}, os.Args[1:]...),
		Kept: kept, Passed: passed, Upstream: os.Getenv("NOTIFY_SOCKET"), Stores: managerStores(), Calm: dropText, Waits: waits, Dir: dir, Terminal: linux.OpenTerminal(), Stderr: os.Stderr}), nil
}

// runtimeDir is the folder for sockets, absolute, also for masters; "": none.
func runtimeDir() (string, error) {
	dir, err := admin.Dir()
	if err != nil {
		return "", nil // a master reports it
	}
	if dir, err = filepath.Abs(dir); err == nil && os.Getenv(admin.DirVariable) != "" {
		err = os.Setenv(admin.DirVariable, dir)
	}
	return dir, err
}

// envParent is the pid of the process that an embedded handoff ends with.
const envParent = "HANDOFF_PARENT"

// endWithParent makes the kernel send a SIGTERM when the process that has started this
// one ends: then workers drain. (The signal belongs to the calling thread, so the main
// one calls this.)
func endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot end with the parent: %w", err)
	}
	if parent := os.Getenv(envParent); parent != "" && parent != strconv.Itoa(os.Getppid()) {
		return errors.New("the process that started handoff has exited")
	}
	return nil
}

// upWatchdog is the service manager's watchdog interval for the keeper, which is the main
// process of the service.
func upWatchdog(keeper int) time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(keeper) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// binary is the path that this program was called by, absolute: through its
// symlinks, so that an upgrade follows them.
func binary() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, err = os.Executable()
	}
	if err != nil {
		return "", fmt.Errorf("cannot find handoff's own binary: %w", err)
	}
	return path, nil
}

// partition separates the keeper's store from the sockets of a service manager.
func partition(all []cmsg.Named) (store, passed []cmsg.Named) {
	passed, store = split(fdstore.PassedPrefix, all)
	for i := range passed {
		_, passed[i].Name, _ = strings.Cut(passed[i].Name, "-") // after its number
	}
	return store, passed
}

// envWaits shortens the keeper's waits, for tests.
const envWaits = "HANDOFF_KEEPER_WAITS"

// split returns those with a prefix in their names, without the prefix, and the others.
func split(prefix string, all []cmsg.Named) (with, without []cmsg.Named) {
	for _, n := range all {
		if rest, ok := strings.CutPrefix(n.Name, prefix); ok {
			n.Name = rest
			with = append(with, n)
		} else {
			without = append(without, n)
		}
	}
	return with, without
}

// managerStores reports whether a service manager keeps descriptors for this service
// (FDSTORE of systemd 254; for older ones the unit says so).
func managerStores() bool {
	n, err := strconv.Atoi(os.Getenv("FDSTORE"))
	return err == nil && n > 0
}

// replaceKeeper starts a new keeper with everything that the previous one had. The new
// one ends this process when it takes over; if it does not, replaceKeeper returns the
// error, and this one continues.
func replaceKeeper(named []cmsg.Named, program []byte) error {
	self, err := linux.OpenPidfd(os.Getpid())
	if err != nil {
		return err
	}
	defer self.Close()
	files, names := []uintptr{0, 1, 2}, []string{}
	for _, n := range append(named, cmsg.Named{Name: fdstore.Master, FD: self.FD()}) {
		files, names = append(files, uintptr(n.FD)), append(names, keeper.KeptPrefix+n.Name)
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, envProgram+"=")
	})
	env = append(env, envProgram+"="+string(program), envReplaces+"=1", "NOTIFY_SOCKET="+os.Getenv(keeper.EnvUpstream), "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/exe", bindintercept.Args(-1, len(names), bindintercept.Conditions{}, "/proc/self/exe", append(os.Args[:1:1], os.Args[2:]...)), &syscall.ProcAttr{
		Env: env, Files: files, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: true},
	})
	if err != nil {
		return err
	}
	if next, err := linux.NewPidfd(pid, pidfd); err == nil {
		defer next.Close()
		next.AwaitDeath(time.Now().Add(keeperTimeout))
		next.Signal(unix.SIGKILL)
	} else {
		unix.Kill(pid, unix.SIGKILL) // not reaped yet
	}
	var status unix.WaitStatus
	unix.Wait4(pid, &status, 0, nil)
	return fmt.Errorf("process %d ended: code %d", pid, status.ExitStatus())
}

// keeperTimeout is how long a new keeper may take to take over.
const keeperTimeout = 10 * time.Second
