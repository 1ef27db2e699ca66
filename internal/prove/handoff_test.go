package prove

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/api"
)

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// scripted is a Handoff whose program is the test binary's. It is not started.
func scripted(t *testing.T, env ...string) *Handoff {
	runtime.LockOSThread() // what it starts ends with this thread
	t.Cleanup(runtime.UnlockOSThread)
	dir := t.TempDir()
	t.Setenv("HANDOFF_RUNTIME_DIR", dir)
	broken := filepath.Join(dir, "broken")
	h := &Handoff{Binary: os.Args[0], Name: "proof", Output: filepath.Join(dir, "output"), DrainTimeout: testTimeout,
		Env:   play("handoff", append(env, "NAME=proof", "BROKEN="+broken)...),
		Break: func() error { return os.WriteFile(broken, nil, 0o600) }, Repair: func() error { return os.Remove(broken) }}
	t.Cleanup(h.Stop)
	return h
}

func started(t *testing.T, env ...string) *Handoff {
	t.Helper()
	h := scripted(t, env...)
	if err := h.Start(timeout(t)); err != nil {
		t.Fatal(err)
	}
	return h
}

// Each action ends when the status says that what it wanted is there.
func TestActions(t *testing.T) {
	h := started(t)
	ctx := timeout(t)
	for _, c := range []struct {
		action     Action
		note       string
		generation int
	}{{Reload, "", 2}, {Scale, "2 → 3 → 2 workers", 0}, {Upgrade, "", 0}, {Broken, "rejected, as expected", 0}, {KillMaster, "", 0}} {
		before := h.master()
		out, err := h.Do(ctx, c.action)
		if err != nil || out.Note != c.note || out.Generation != c.generation || len(out.Stale) > 0 {
			t.Errorf("%s: %+v, %v", c.action, out, err)
		}
		if now := h.master(); now == 0 || (now != before) != (c.action == KillMaster) {
			t.Errorf("%s: master %d, before %d", c.action, now, before)
		}
		if err := h.Settle(ctx); err != nil {
			t.Errorf("%s: %v", c.action, err)
		}
	}
	if _, err := h.Do(ctx, "dance"); !errors.Is(err, ErrCannot) {
		t.Error(err)
	}
	h.Without = map[Action]string{Scale: "each slot has a port of its own"}
	if _, err := h.Do(ctx, Scale); !errors.Is(err, ErrCannot) || !strings.HasSuffix(err.Error(), ": each slot has a port of its own") {
		t.Error(err)
	}
	h.Stop()
	os.RemoveAll(os.Getenv("HANDOFF_RUNTIME_DIR")) // or a client waits for the next master
	if _, err := h.Do(ctx, Reload); err == nil {
		t.Error("a handoff that has exited reloads")
	}
	if err := h.Settle(ctx); err == nil || err.Error() != "handoff has exited" {
		t.Error(err)
	}
}

// The connections of a killed worker are known as being inside of it; others are not.
func TestInside(t *testing.T) {
	h := started(t)
	ctx := timeout(t)
	s, err := h.Status()
	if err != nil {
		t.Fatal(err)
	}
	victim, inside, outside := strconv.Itoa(s.Workers[0].PID), 0, 0
	of := map[string]string{} // the pid of the worker that has a connection
	for inside == 0 || outside == 0 {
		c, err := net.Dial("tcp", h.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		resp, err := (&http.Client{Transport: tr}).Get("http://" + h.Addr())
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if of[c.LocalAddr().String()] = string(pid); string(pid) == victim {
			inside++
		} else {
			outside++
		}
	}
	if _, err := h.Do(ctx, KillWorker); err != nil {
		t.Fatal(err)
	}
	for local, pid := range of {
		if h.Inside(local) != (pid == victim) {
			t.Errorf("%s is a connection of %s, and %s was killed: inside is %v", local, pid, victim, h.Inside(local))
		}
	}
	if err := h.Settle(ctx); err != nil {
		t.Error(err)
	}
	for local := range of {
		if h.Inside(local) {
			t.Errorf("%s is still inside", local)
		}
	}
}

// A reload that says it is done while old processes accept is found out.
func TestStale(t *testing.T) {
	h := started(t, "STALE=1")
	out, err := h.Do(timeout(t), Reload)
	if err != nil || len(out.Stale) != staleTries || out.Stale[0].Error() != "generation 1 answered after generation 2 was in service" {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestFailedActions(t *testing.T) {
	h := started(t, "HANGS=1")
	ctx := timeout(t)
	broken, repair := h.Break, h.Repair
	h.Break, h.Repair = func() error { return nil }, func() error { return nil } // it is not broken
	if _, err := h.Do(ctx, Broken); err == nil || err.Error() != "a program that exits at once was put into service" {
		t.Error(err)
	}
	h.DrainTimeout = 20 * time.Millisecond
	if err := h.Settle(ctx); err == nil || err.Error() != "after 20ms the state is serving, and 2 workers are still starting or draining" {
		t.Error(err)
	}
	broken()
	if _, err := h.Do(ctx, Reload); err == nil || err.Error() != "generation 3 failed: exited with code 1" {
		t.Error(err)
	}
	repair()
	h.Break = nil
	if _, err := h.Do(ctx, Broken); err != ErrCannot {
		t.Error(err)
	}
}

// Why a program does not come up is in the error: the reason, and what it wrote.
func TestDoesNotStart(t *testing.T) {
	h := scripted(t, "CRASH=1")
	if err := h.Start(timeout(t)); err == nil || err.Error() != "the program did not become ready: worker 1 exited with code 1\n  no database" {
		t.Error(err)
	}
	h = scripted(t)
	h.Binary = filepath.Join(t.TempDir(), "handoff")
	if err := h.Start(timeout(t)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	h = scripted(t)
	h.Binary, h.Args = "/bin/sleep", []string{"60"}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := h.Start(ctx); err == nil || !strings.HasPrefix(err.Error(), "the program did not become ready: ") {
		t.Error(err)
	}
}

func TestLastLines(t *testing.T) {
	h := &Handoff{Output: filepath.Join(t.TempDir(), "output")}
	if why := h.whyNotServing(); why != "" {
		t.Errorf("%q", why)
	}
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	b.WriteString(`{"level":"WARN","msg":"Slow"}` + "\n")
	os.WriteFile(h.Output, []byte(b.String()), 0o600)
	if why := strings.Split(h.whyNotServing(), "\n"); len(why) != 1+maxLast || why[0] != "Slow" || why[1] != "  line 12" || why[maxLast] != "  line 19" {
		t.Errorf("%q", why)
	}
}

func TestReach(t *testing.T) {
	for _, c := range []struct{ addresses, want string }{
		{"", ""}, {"/run/web.sock", ""}, {"127.0.0.1:80", "127.0.0.1:80"}, {"0.0.0.0:80", "127.0.0.1:80"}, {"*:80", "127.0.0.1:80"},
		{":80", "127.0.0.1:80"}, {"[::]:80", "[::1]:80"}, {"/run/web.sock [::1]:81 127.0.0.1:80", "[::1]:81"}, {"name:80 127.0.0.2:82", "127.0.0.2:82"},
	} {
		var all []api.AddressStatus
		for _, a := range strings.Fields(c.addresses) {
			all = append(all, api.AddressStatus{Address: a})
		}
		if got := reach(all); got != c.want {
			t.Errorf("%s: %s; want %s", c.addresses, got, c.want)
		}
	}
}

// Another tool is commands of the shell.
func TestAgainst(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := timeout(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	output := filepath.Join(t.TempDir(), "output")
	a := &Against{Command: os.Args[0], Reload: "kill -HUP $PID; until grep -q hangup $OUTPUT; do sleep 0.01; done",
		Env: play("server", "ADDRESS="+addr, "OUTPUT="+output), Output: output, Address: addr}
	defer a.Stop()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Action{Reload, Reload} {
		if _, err := a.Do(ctx, d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	a.Reload = "echo no such thing >&2; exit 3"
	if _, err := a.Do(ctx, Reload); err == nil || err.Error() != "echo no such thing >&2; exit 3: exit status 3: no such thing" {
		t.Error(err)
	}
	a.Reload = ""
	for _, d := range []Action{Reload, Scale} {
		if _, err := a.Do(ctx, d); !errors.Is(err, ErrCannot) {
			t.Errorf("%s: %v", d, err)
		}
	}
	if a.Addr() != addr || a.Inside(addr) || a.Settle(ctx) != nil {
		t.Error("what is not known of another tool")
	}
	if _, err := a.Do(ctx, KillMaster); err != nil {
		t.Error(err)
	}
	<-a.ended
	if _, err := a.Do(ctx, KillMaster); err == nil || !strings.HasPrefix(err.Error(), "the tool has exited") {
		t.Error(err)
	}
	wrong := &Against{Command: "echo no such program; exit 1", Output: a.Output, Address: "127.0.0.1:1"}
	if err := wrong.Start(ctx); err == nil || !strings.HasSuffix(err.Error(), "\nno such program") {
		t.Error(err)
	}
	wrong.Stop()
	(&Against{}).Stop()
	(&Handoff{}).Stop()
}
