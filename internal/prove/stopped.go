package prove

import (
	"context"
	"time"

	"handoff/internal/linux"
)

// stopped waits until every thread of a process has stopped.
func stopped(ctx context.Context, pid int) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for ctx.Err() == nil {
		running := false
		for t := range linux.Threads(pid) {
			running = running || t.State != 'T' && t.State != 't' && t.State != 'Z'
		}
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
