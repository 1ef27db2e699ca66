package integration

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/linux"
	"handoff/internal/load"
)

// talkative is server.js, which writes all the time, and dies of what it cannot write.
func talkative(t *testing.T) []string {
	return []string{script(t, "setInterval(() => process.stdout.write('tick\\n'), 2); require('"+data("server.js")+"')")}
}

// closingTerminal returns both ends of a terminal; what is written to it is read until close
// is called, which is the end of it.
func closingTerminal(t *testing.T) (end *os.File, close func()) {
	t.Helper()
	other, end, err := linux.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { other.Close(); end.Close() })
	return end, readUntil(other)
}

// readUntil reads a file until close is called.
func readUntil(f *os.File) (close func()) {
	ended := make(chan struct{})
	go func() { // ends with close
		defer func() { ended <- struct{}{} }()
		for buf := make([]byte, 1<<16); ; {
			if _, err := f.Read(buf); err != nil {
				return
			}
		}
	}()
	return func() {
		f.SetReadDeadline(time.Unix(1, 0))
		<-ended
		f.Close()
	}
}

// The terminal that handoff was started at closes (ssh, tmux): the service stops, with
// drain, and what workers write in the meantime does nothing to them.
func TestTerminalClosesAndTheServiceStops(t *testing.T) {
	t.Parallel()
	end, closeIt := closingTerminal(t)
	w := start(t, options{flags: []string{"-n", "2"}, app: talkative(t), stdout: end, session: true})
	for _, pid := range w.workers() { // one of another user could type into it (TIOCSTI)
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		const tty = 7 - 3 // of proc_pid_stat(5), after the name
		if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); f[tty] != "0" {
			t.Errorf("worker %d has the controlling terminal %s", pid, f[tty])
		}
	}
	answered := make(chan error, 1)
	go func() {
		resp, err := fresh.Get("http://" + w.addr + "/?ms=1000")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	run := w.load(load.Config{Clients: 2}) // what comes later is a request in flight by now
	run.Await(50, testTimeout)
	run.Stop()
	closeIt()
	w.exits(0)
	if err := <-answered; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if all := w.all("worker.crashed"); len(all) > 0 {
		t.Errorf("a worker crashed: %+v", all)
	}
	if all := w.all("cluster.reloading"); len(all) > 0 {
		t.Errorf("it has reloaded: %+v", all)
	}
}

// A service that was detached from its terminal (nohup), or whose stdout nobody reads any
// more (| head -1), goes on: reloads, and a master that is killed, among it.
func TestOutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"terminal", "pipe"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options{flags: []string{"-n", "2"}, app: talkative(t)}
			var closeIt func()
			if name == "terminal" {
				o.stdout, closeIt = closingTerminal(t)
				o.session, o.behind = true, []string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`}
			} else {
				r, end, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				o.stdout, closeIt = end, readUntil(r)
			}
			w := start(t, o)
			o.stdout.Close()
			run := w.load(load.Config{Clients: 2, Pause: 5 * time.Millisecond})
			run.Await(50, testTimeout)
			closeIt()
			w.await("output.lost")
			w.reload()
			w.retired(2)
			w.killMaster()
			w.reload()
			w.retired(2)
			w.nothingLost(run)
			if all := w.all("worker.crashed"); len(all) > 0 {
				t.Errorf("a worker crashed: %+v", all)
			}
			w.stop()
		})
	}
}
