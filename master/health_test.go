package master

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	checks "handoff/internal/health"
	"handoff/master/health"
)

// doctor has the answer of each worker to its check, and asks it over its connection.
type doctor struct {
	t    *testing.T
	mu   sync.Mutex
	sick func(slot, gen, pid int) string // "": it is well
	seen map[int]int                     // checks, by pid
}

func (d *doctor) check(ctx context.Context, dial checks.Dial, about map[string]any) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testTimeout))
	fmt.Fprintln(c, "who")
	var slot, gen, pid int
	if _, err := fmt.Fscan(c, &slot, &gen, &pid); err != nil {
		return err
	}
	if pid != about["pid"] || slot != about["slot"] || gen != about["generation"] {
		d.t.Errorf("the check of %v is answered by slot %d, generation %d, pid %d", about, slot, gen, pid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[pid]++
	if why := d.sick(slot, gen, pid); why != "" {
		return errors.New(why)
	}
	return nil
}

func (d *doctor) says(sick func(slot, gen, pid int) string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick = sick
}

func well(int, int, int) string { return "" }

func checked(t *testing.T, cfg Config) (*world, *doctor) {
	d := &doctor{t: t, sick: well, seen: map[int]int{}}
	cfg.Health = &Health{Config: health.Config{Interval: 5 * time.Millisecond, Rise: 2, Fall: 2, StartPeriod: 50 * time.Millisecond}, Timeout: testTimeout, Check: d.check}
	return activated(t, cfg), d
}

// A generation whose checks fail is never steered to, and the reload says what they got.
func TestHealthRefuses(t *testing.T) {
	w, d := checked(t, base("activation", ActivationContract))
	d.says(func(_, gen, _ int) string {
		if gen == 2 {
			return "GET /healthz: 500, 'no database'"
		}
		return ""
	})
	w.control.Reload(t.Context())
	w.await("worker.refused", "generation=2", "reason=health check failed: GET /healthz: 500, 'no database'")
	w.await("cluster.failed", "generation=2", "reason=slot", "health check failed: GET /healthz: 500", "serving=1")
	if r := w.status().Reload; r == nil || !strings.Contains(r.Reason, "no database") {
		t.Errorf("%+v", r)
	}
	for range 16 {
		if _, gen, _ := w.ask("who"); gen != 1 {
			t.Errorf("generation %d answers", gen)
		}
	}
	w.control.Reload(t.Context())
	w.await("cluster.reloaded", "generation=3")
	if _, gen, pid := w.ask("who"); gen != 3 || d.checks(pid) < 2 {
		t.Errorf("generation %d answers, after %d checks", gen, d.checks(pid))
	}
}

func (d *doctor) checks(pid int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[pid]
}

// A check that hangs ends a start at its timeout.
func TestHealthHangs(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.Health = &Health{Config: health.Config{Interval: 5 * time.Millisecond, Rise: 1, Fall: 2}, Timeout: 50 * time.Millisecond,
		Check: func(ctx context.Context, dial checks.Dial, about map[string]any) error {
			if about["generation"] == 1 {
				return nil
			}
			<-ctx.Done()
			return errors.New("GET /healthz: no answer within 50ms")
		}}
	w := activated(t, cfg)
	w.control.Reload(t.Context())
	w.await("cluster.failed", "generation=2", "no answer within 50ms", "serving=1")
}

// A worker that serves and fails its checks gets no connections, unless no other is well, and
// is replaced; if it recovers before that, it gets them again.
func TestHealthGoesOn(t *testing.T) {
	w, d := checked(t, base("activation", ActivationContract))
	first := map[int]int{}
	for _, ws := range w.status().Workers {
		first[ws.Slot] = ws.PID
	}
	d.says(func(slot, _, _ int) string {
		if slot == 0 {
			return "no database"
		}
		return ""
	})
	w.await("worker.unhealthy", "slot=0", "reason=no database", "new connections go to the others")
	for range 32 {
		if slot, _, _ := w.ask("who"); slot != 1 {
			t.Fatal("a connection to the worker that is not well")
		}
	}
	for _, ws := range w.status().Workers {
		if ws.PID == first[0] && (ws.Unhealthy != "no database" || ws.RestartReasons["unhealthy"] == 0) {
			t.Errorf("%+v", ws)
		}
	}
	d.says(func(slot, _, pid int) string {
		if pid == first[1] {
			return "no database, either"
		}
		return map[bool]string{true: "no database"}[slot == 0]
	})
	w.await("worker.unhealthy", "slot=1", "still go to it, because no other worker passes")
	w.ask("who")
	d.says(well)
	w.await("worker.shutdown", fmt.Sprint("pid=", first[0])) // replaced
	w.await("worker.shutdown", fmt.Sprint("pid=", first[1]))
	for slots := map[int]bool{}; len(slots) < 2; {
		slot, _, pid := w.ask("who")
		if slots[slot] = true; pid == first[0] || pid == first[1] {
			t.Errorf("pid %d answers", pid)
		}
	}
}

// Recovery, while no other worker can be started.
func TestHealthRecovers(t *testing.T) {
	cfg := base("activation", ActivationContract)
	w, d := checked(t, cfg)
	first := map[int]bool{}
	for _, ws := range w.status().Workers {
		first[ws.PID] = true
	}
	sick := true
	ill := func(slot, _, pid int) string {
		return map[bool]string{true: "no database"}[!first[pid] || slot == 0 && sick]
	}
	d.says(ill)
	w.await("worker.unhealthy", "slot=0")
	d.mu.Lock()
	sick = false
	d.mu.Unlock()
	w.await("worker.healthy", "slot=0")
	for slots := map[int]bool{}; len(slots) < 2; {
		slot, _, _ := w.ask("who")
		slots[slot] = true
	}
	d.says(well)
}

// Where one worker cannot be asked, that is said, and not held against it.
func TestHealthOfSharedSockets(t *testing.T) {
	cfg := base("activation", ActivationContract)
	cfg.NoSteering = true
	w, _ := checked(t, cfg)
	w.await("health.skipped", "SO_ATTACH_REUSEPORT_CBPF")
	w.control.Reload(t.Context())
	w.await("cluster.reloaded", "generation=2")
}
