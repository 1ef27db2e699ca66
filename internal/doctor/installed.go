package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"handoff/internal/admin"
	"handoff/sdk/node"
)

// controlSocket creates the folder of control sockets.
func controlSocket(Machine) Verdict {
	dir, err := admin.Dir()
	if err != nil {
		return Verdict{Worse, err.Error(), "commands such as handoff status will not find running services: set HANDOFF_RUNTIME_DIR to a directory that this user owns"}
	}
	return Verdict{State: OK, What: dir}
}

// drainPreload installs the preload.
func drainPreload(Machine) Verdict {
	path, err := node.Install(os.Geteuid())
	if err != nil {
		return Verdict{Worse, err.Error(), "keep-alive clients of Node programs can lose a request during a reload: set HANDOFF_STATE_DIR to a writable directory"}
	}
	return Verdict{State: OK, What: path}
}

// nodeTimeout limits how long node may take to print its version.
const nodeTimeout = 10 * time.Second

func nodeVersion(Machine) Verdict {
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "-p", "process.version").Output()
	if err != nil {
		return Verdict{State: Info, What: "not found in PATH; only Node programs need it"}
	}
	v := Verdict{State: OK, What: strings.TrimSpace(string(out))}
	var major int
	fmt.Sscanf(v.What, "v%d.", &major)
	if major < 18 {
		v.State, v.Advice = Worse, "handoff is tested with Node 18 and later; Node before 18.2 does not close idle keep-alive connections in a drain"
	}
	return v
}
