package config

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Workdir returns the workers' working directory, absolute, with its symlinks, so that a
// reload follows them. here is handoff's own.
func (r *Run) Workdir(here string) (string, error) {
	dir := r.WorkdirPath(here)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("cannot use --cwd %s: not a directory", dir)
	}
	return dir, nil
}

// WorkdirPath is Workdir without a check that it exists.
func (r *Run) WorkdirPath(here string) string {
	if filepath.IsAbs(r.Dir) {
		return r.Dir
	}
	return filepath.Join(here, r.Dir)
}

var (
	scripts    = []string{".js", ".mjs", ".cjs"}
	typescript = []string{".ts", ".mts", ".cts"}
)

// Command turns the arguments of `handoff run` into a command line, and says at
// which index the script is, if a runtime was put before it or is there.
func Command(args []string, dir string) (command []string, script int, err error) {
	command, script, err = CommandLine(args, dir)
	if err != nil || script == 0 {
		return command, script, err
	}
	path := command[script]
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if info, err := os.Stat(path); err != nil {
		return nil, 0, fmt.Errorf("cannot run %s: no such file in %s", command[script], filepath.Dir(path))
	} else if info.IsDir() {
		return nil, 0, fmt.Errorf("cannot run %s: is a directory", command[script])
	}
	return command, script, nil
}

// CommandLine is Command without a check that the script exists.
func CommandLine(args []string, dir string) (command []string, script int, err error) {
	if meant := OneWord(args[0]); meant != "" {
		path := args[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if _, err := os.Stat(path); err != nil {
			return nil, 0, fmt.Errorf("cannot run %s", meant)
		}
	}
	ext := filepath.Ext(args[0])
	switch {
	case slices.Contains(scripts, ext):
		command, script = append([]string{"node"}, args...), 1
	case slices.Contains(typescript, ext):
		flags, err := typescriptFlags()
		if err != nil {
			return nil, 0, fmt.Errorf("cannot run %s: %w", args[0], err)
		}
		command = append(append([]string{"node"}, flags...), args...)
		script = 1 + len(flags)
	case isNode(args[0]):
		return args, nodeScript(args, dir), nil
	default:
		return args, 0, nil
	}
	return command, script, nil
}

// nodeScript returns the index of the script in a command line of node's, or 0
// if there is none that is a file by that very name.
func nodeScript(args []string, dir string) int {
	// Node's options that take the next argument.
	takes := []string{"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
		"--env-file", "--env-file-if-exists", "--input-type", "--title", "--icu-data-dir", "--openssl-config",
		"--redirect-warnings", "--trace-event-categories", "--unhandled-rejections", "--dns-result-order",
		"--diagnostic-dir", "--disable-warning", "--watch-path", "--allow-fs-read", "--allow-fs-write"}
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-e", a == "--eval", a == "-p", a == "--print", a == "-":
			return 0
		case slices.Contains(takes, a):
			i++
		case strings.HasPrefix(a, "-") && a != "--":
		default:
			if a == "--" {
				if i++; i == len(args) {
					return 0
				}
			}
			path := args[i]
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return i
			}
			return 0
		}
	}
	return 0
}

func isNode(name string) bool {
	base := filepath.Base(name)
	return base == "node" || base == "nodejs"
}

// nodeTimeout is how long node may take to print its features.
const nodeTimeout = 5 * time.Second

// typescriptFlags returns the options with which the installed node runs TypeScript.
func typescriptFlags() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "-p", "[process.versions.node, !!process.features.typescript].join()").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot run node: %w", err)
	}
	version, native, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
	if native == "true" {
		return nil, nil
	}
	var major, minor int
	fmt.Sscanf(version, "%d.%d", &major, &minor)
	if major > 22 || major == 22 && minor >= 6 {
		return []string{"--experimental-strip-types"}, nil
	}
	return nil, fmt.Errorf("node %s cannot run TypeScript; use node 22.6 or later, or run what your build produces", version)
}
