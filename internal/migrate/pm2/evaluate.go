package pm2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"handoff/internal/migrate"
)

// timeout is how long the file may take to say what it has.
const timeout = 5 * time.Second

// script has node print what a file exports, between marks, since the file may print
// on its own. Functions are no data.
const script = `import(require('url').pathToFileURL(process.argv[1])).then((m) => {
  const v = m.default === undefined ? m : m.default
  require('fs').writeSync(1, '\n\0' + JSON.stringify(v, (k, v) => typeof v === 'function' ? undefined : v) + '\0')
}).catch((err) => { console.error(err && err.stack || err); process.exit(1) })`

// Identity is who evaluates a file that is a program.
type Identity struct{ credential *syscall.Credential }

// Self is the user of this process.
func Self() Identity { return Identity{} }

// As is another user, for root.
func As(uid, gid int, groups []int) Identity {
	c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, g := range groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return Identity{c}
}

// evaluate reads a file's value.
func evaluate(path string, as Identity) (value any, err error) {
	switch filepath.Ext(path) {
	case ".json":
		return value, migrate.ReadJSON(path, &value)
	case ".yaml", ".yml":
		b, err := migrate.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read PM2's file: %w", errors.Unwrap(err))
		}
		if err := yaml.Unmarshal(b, &value); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return value, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("cannot read PM2's file: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "-e", script, "--", path)
	cmd.Dir = filepath.Dir(path)
	// A session of its own: it must not be able to type into handoff's terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as.credential, Setsid: true}
	cmd.WaitDelay = time.Second
	out, errs := &bounded{most: maxOutput}, &bounded{most: maxOutput}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		switch {
		case out.over || errs.over:
			err = fmt.Errorf("it prints more than %d MiB", maxOutput>>20)
		case ctx.Err() != nil:
			err = fmt.Errorf("not done within %v", timeout)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(errs.text)), "\n")
		return nil, fmt.Errorf("%s: node cannot read it (%w): %s", path, err, first[:min(len(first), maxFirst)])
	}
	if value, err = exported(string(out.text)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}

// maxOutput is how much a file may print while it is evaluated, in bytes, and maxFirst how
// much of its first line is in an error.
const (
	maxOutput = 4 << 20
	maxFirst  = 1 << 10
)

// bounded keeps what is written to it, up to a limit. More is an error, which ends the
// writer.
type bounded struct {
	text []byte
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > b.most {
		b.over = true
		return 0, errors.New("too much output")
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// exported finds what the script has printed between its marks.
func exported(out string) (value any, err error) {
	_, text, ok := strings.Cut(out, "\n\x00")
	text, _, ok2 := strings.Cut(text, "\x00")
	if !ok || !ok2 || json.Unmarshal([]byte(text), &value) != nil {
		return nil, errors.New("it exports no data")
	}
	return value, nil
}
