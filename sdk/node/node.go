// Package node contains the part of the Node SDK that the master injects into unmodified
// programs.
package node

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"handoff/internal/linux"
	"handoff/internal/trust"
)

//go:embed preload.cjs
var preload []byte

// Install writes the drain preload and returns its path. The folder is not one of
// temporary files, which may be deleted while a worker runs: it loads the preload again
// for a worker thread. If the file exists this is cheap. The
// user uid, whom workers run as, can read it whatever the umask is.
func Install(uid int) (path string, err error) {
	sum := sha256.Sum256(preload)
	name := "preload-" + hex.EncodeToString(sum[:6]) + ".cjs"
	var errs []error
	for _, dir := range places() {
		path := filepath.Join(dir, name)
		err := put(dir, path)
		if err == nil && uid != os.Geteuid() {
			err = reachable(dir)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return path, nil
	}
	return "", fmt.Errorf("cannot store the drain preload: %w", errors.Join(errs...))
}

// places lists the folders to try: that of a package or a service manager, then the state
// folder of the user, then memory.
func places() []string {
	var dirs []string
	for _, name := range []string{"HANDOFF_STATE_DIR", "STATE_DIRECTORY", "CACHE_DIRECTORY"} {
		if dir, _, _ := strings.Cut(os.Getenv(name), ":"); filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/var/lib/handoff")
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "handoff"))
	} else if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".local/state/handoff"))
	}
	// Exists also in a container with a read-only root.
	return append(dirs, "/dev/shm/handoff-"+strconv.Itoa(os.Geteuid()))
}

// put writes the file unless it exists, in a folder that no other user can write to: its
// content runs in every worker.
func put(dir, path string) error {
	mkdir := os.MkdirAll
	if os.Geteuid() == 0 { // workers may be of another user
		mkdir = linux.MkdirAll
	}
	if err := mkdir(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory that only its owner can write to", dir)
	}
	if err := trust.Replaceable(dir); err != nil { // that user could exchange the directory
		return fmt.Errorf("%s is no place for it: %w", dir, err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, preload) {
		return nil
	}
	tmp, err := os.CreateTemp(dir, ".preload-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(preload); err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}

// reachable looks whether any user may pass through the folder, and those above it.
func reachable(dir string) error {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is closed to the workers' user", d)
		}
		if d == "/" {
			return nil
		}
	}
}

// Environ adds to env the variables that load the preload at path, and keeps the user's
// NODE_OPTIONS: the preload restores it before the program starts. Under Node's
// permission model, enabled in command or NODE_OPTIONS, it allows reading the preload.
func Environ(env, command []string, path string, d Drain) []string {
	options := "--require " + quote(path)
	restricted := func(s string) bool { return s == "--permission" || s == "--experimental-permission" }
	if slices.ContainsFunc(command, restricted) || slices.ContainsFunc(env, func(kv string) bool {
		user, ok := strings.CutPrefix(kv, "NODE_OPTIONS=")
		return ok && slices.ContainsFunc(strings.Fields(user), restricted)
	}) {
		options += " --allow-fs-read=" + quote(path)
	}
	out := make([]string, 0, len(env)+3)
	for _, kv := range env {
		if user, ok := strings.CutPrefix(kv, "NODE_OPTIONS="); ok {
			out = append(out, "HANDOFF_PRELOAD_NODE_OPTIONS="+user)
			options += " " + user
			continue
		}
		out = append(out, kv)
	}
	return append(d.environ(out), "NODE_OPTIONS="+options)
}

// Drain configures the drain of the preload.
type Drain struct {
	Linger    time.Duration // of idle keep-alive connections
	Websocket int           // code of the close frame that websockets get: 1001, 1012; 0: they are the program's
	Spread    time.Duration // of the closes of one worker's websockets
	Emit      string        // a signal whose listeners the program calls if a channel message starts the drain; "": none
	SayReady  bool          // behind a launcher: process.send of {cmd: 'ready'} is forwarded
}

func (d Drain) environ(env []string) []string {
	env = append(env, "HANDOFF_PRELOAD_LINGER_MS="+strconv.FormatInt(d.Linger.Milliseconds(), 10))
	if d.Websocket != 0 {
		env = append(env, fmt.Sprintf("HANDOFF_PRELOAD_WEBSOCKET=%d,%d", d.Websocket, d.Spread.Milliseconds()))
	}
	if d.Emit != "" {
		env = append(env, "HANDOFF_PRELOAD_EMIT=SIG"+strings.TrimPrefix(d.Emit, "SIG"))
	}
	return env
}

// NotifyVariable has the path of the program that preload and SDK run to send a notice,
// behind a launcher: handoff itself.
const NotifyVariable = "HANDOFF_PRELOAD_NOTIFY"

// EnvironBehind adds to env the variables that load the preload into the node processes
// below a command that is not node itself (npm start, a shell). The signal drains their
// servers, unless the program handles it.
func EnvironBehind(env []string, path, signal string, d Drain) []string {
	options := "--require " + quote(path)
	out := make([]string, 0, len(env)+3)
	for _, kv := range env {
		if user, ok := strings.CutPrefix(kv, "NODE_OPTIONS="); ok {
			options += " " + user
			continue
		}
		out = append(out, kv)
	}
	if d.SayReady {
		out = append(out, "HANDOFF_PRELOAD_READY=1")
	}
	return append(d.environ(out), "NODE_OPTIONS="+options, "HANDOFF_PRELOAD_SIGNAL=SIG"+strings.TrimPrefix(signal, "SIG"))
}

// quote follows the parser of NODE_OPTIONS in Node's src/node_options.cc.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
