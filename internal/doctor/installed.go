package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"handoff/internal/admin"
	"handoff/sdk/node"
)

// controlSocket makes its folder.
func controlSocket(Machine) Verdict {
	if err := admin.CheckDir(); err != nil {
		return Verdict{Worse, err.Error(), "handoff status and the like will not find running services: set HANDOFF_RUNTIME_DIR to a folder of this user"}
	}
	return Verdict{State: OK, What: admin.Dir()}
}

// drainPreload installs it.
func drainPreload(Machine) Verdict {
	path, err := node.Install()
	if err != nil {
		return Verdict{Worse, err.Error(), "keep-alive clients of Node programs may lose a request at a reload: set HANDOFF_STATE_DIR to a folder that can be written to"}
	}
	return Verdict{State: OK, What: path}
}

// nodeTimeout is how long node may take to say its version.
const nodeTimeout = 10 * time.Second

func nodeVersion(Machine) Verdict {
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "-p", "process.version").Output()
	if err != nil {
		return Verdict{State: Info, What: "not in PATH; other programs do not need it"}
	}
	v := Verdict{State: OK, What: strings.TrimSpace(string(out))}
	var major int
	fmt.Sscanf(v.What, "v%d.", &major)
	if major < 18 {
		v.State, v.Advice = Worse, "handoff is tested with Node 18 and later; before 18.2 Node leaves idle keep-alive connections open in a drain"
	}
	return v
}
