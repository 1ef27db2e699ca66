package master

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
)

// all is what workers write.
type all struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (a *all) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.Write(p)
}

// A program that cannot start says why once, however many workers and attempts there are,
// unless each one's output is told apart. Its last words are in the reason all the same.
func TestFailedStartsSayItOnce(t *testing.T) {
	for _, captured := range []bool{false, true} {
		out := &all{}
		cfg := base("crash", ActivationContract)
		cfg.Fleet.Slots, cfg.Fleet.MaxFailures, cfg.Captured = 4, 3, captured
		cfg.Output = func(int, int, int) (io.Writer, io.Writer) { return io.Discard, out }
		w := run(t, cfg)
		if code := w.ends(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		w.await("worker.crashed", "failures=1", "same=false", "stderr=no database", "max_failures=3")
		w.await("worker.crashed", "failures=3", "same=true", "stderr=no database")
		w.await("cluster.failed", "stderr=no database")
		if n := strings.Count(out.text.String(), "no database"); captured == (n == 1) || n == 0 {
			t.Errorf("captured %v: it is said %d times", captured, n)
		}
	}
}
