package launch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/bindintercept"
	"handoff/master/fleet"
	"handoff/master/process"
	"handoff/master/snapshot"
)

func prepare(t *testing.T, all *Programs, gen fleet.Gen) *Program {
	t.Helper()
	p := all.Prepare(gen, &process.Command{Args: []string{"/bin/sh", "-c", "exit 3"}, Dir: t.TempDir(), Env: []string{"A=1", "PORT=old"}}, unix.SIGUSR1, []int{8001, 8002})
	if p.Err != nil {
		t.Fatal(p.Err)
	}
	return p
}

// What a worker is told, by what the configuration and the contract say.
func TestSpec(t *testing.T) {
	p := prepare(t, New(), 3)
	bare := Start{Gen: 3, Worker: 12, Slot: 1, Channel: -1}
	about := []string{"WORKER_ID=1", "HANDOFF_GENERATION=3", "HANDOFF_WORKER=12"}
	for _, c := range []struct {
		name       string
		start      func(s *Start)
		env        []string // beyond about
		launch     []string // of the program's environment
		files      []int
		trampoline []string
	}{
		{name: "bare", start: func(s *Start) {}, launch: []string{"A=1", "PORT=old"}},
		{name: "a port of its own", start: func(s *Start) { s.Ports = []int{81, 82} }, launch: []string{"PORT=82", "port=82"}},
		{name: "a slot without a port", start: func(s *Start) { s.Ports = []int{81} }, launch: []string{"PORT=old"}},
		{name: "another name for the slot", start: func(s *Start) { s.SlotVariable = "NODE_APP_INSTANCE" }, launch: []string{"NODE_APP_INSTANCE=1"}},
		{name: "an environment that is added to", start: func(s *Start) { s.Environ = func(env []string) []string { return append(env, "B=2") } }, launch: []string{"A=1", "B=2"}},
		{name: "a service", start: func(s *Start) { s.Service, s.Instance = "web@/srv", "i1" }, env: []string{snapshot.ServiceVariable + "=web@/srv", "HANDOFF_INSTANCE=i1"}},
		{name: "limits", start: func(s *Start) { s.MaxRequests, s.Watchdog = 9, 2*time.Second }, env: []string{"HANDOFF_MAX_REQUESTS=9", "WATCHDOG_USEC=2000000"}},
		{name: "a notify socket", start: func(s *Start) { s.Notify = "@n" }, env: []string{"NOTIFY_SOCKET=@n"}},
		{name: "sockets", start: func(s *Start) { s.Sockets, s.Names = []int{7, 9}, []string{"", "web"} },
			env: []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=unknown:web"}, files: []int{7, 9}, trampoline: bindintercept.Prefix(-1, 2, bindintercept.Conditions{})},
		{name: "a channel", start: func(s *Start) {
			s.Channel, s.ContractEnv = 20, func(fd int) []string { return []string{"NODE_CHANNEL_FD=" + string(rune('0'+fd))} }
		}, env: []string{"NODE_CHANNEL_FD=3"}, files: []int{20}},
		{name: "sockets, and a filter over the channel", start: func(s *Start) { s.Sockets, s.Names, s.Channel, s.Filter = []int{7}, []string{"a"}, 20, true },
			env: []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a"}, files: []int{7, 20}, trampoline: bindintercept.Prefix(4, 1, bindintercept.Conditions{})},
		{name: "a filter without a channel", start: func(s *Start) { s.Filter = true }},
		{name: "a CPU of the slot's", start: func(s *Start) { s.Conditions.CPUs = []int{4, 5} }, trampoline: bindintercept.Prefix(-1, 0, bindintercept.Conditions{CPUs: []int{5}})},
		{name: "fewer CPUs than slots", start: func(s *Start) { s.Conditions.CPUs = []int{4} }, trampoline: bindintercept.Prefix(-1, 0, bindintercept.Conditions{CPUs: []int{4}})},
		{name: "it ends with its master", start: func(s *Start) { s.Conditions.Death = unix.SIGKILL },
			trampoline: bindintercept.Prefix(-1, 0, bindintercept.Conditions{Death: unix.SIGKILL, Parent: os.Getpid()})},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := bare
			c.start(&s)
			got := p.Spec(s)
			if want := slices.Concat(about, c.env); !slices.Equal(got.Env, want) {
				t.Errorf("told %q, want %q", got.Env, want)
			}
			for _, kv := range c.launch {
				name, _, _ := strings.Cut(kv, "=")
				of := slices.DeleteFunc(slices.Clone(got.Launch.Env), func(kv string) bool { return !strings.HasPrefix(kv, name+"=") })
				if !slices.Equal(of, []string{kv}) {
					t.Errorf("%s is %q, want %q", name, of, kv)
				}
			}
			if !slices.Equal(got.Files, c.files) || !slices.Equal(got.Trampoline, c.trampoline) {
				t.Errorf("files %v, trampoline %q; want %v, %q", got.Files, got.Trampoline, c.files, c.trampoline)
			}
		})
	}
	if !slices.Contains(p.launch.Env, "PORT=old") {
		t.Errorf("a start has changed the program: %q", p.launch.Env)
	}
}

// A program is of its generation, whatever the configuration says later, and for the next
// master.
func TestRecord(t *testing.T) {
	all := New()
	p := prepare(t, all, 3)
	p.StderrTail = []string{"why"}
	all.Prepare(4, &process.Command{Args: []string{"./no-such-program"}, Dir: t.TempDir()}, 0, nil)
	all.Prepare(5, &process.Command{Args: []string{"/bin/sh"}, Dir: t.TempDir()}, 0, nil)
	all.Forget(5)
	b, err := json.Marshal(all.State([]fleet.Gen{3, 4, 5}))
	if err != nil {
		t.Fatal(err)
	}
	var read []snapshot.Generation
	if err := json.Unmarshal(b, &read); err != nil || len(read) != 2 {
		t.Fatal(err, read)
	}
	next := New()
	next.Restore(read)
	got := next.Of(3)
	if got.Dir() != p.Dir() || !slices.Equal(got.Args(), p.Args()) || got.Drain(unix.SIGTERM) != unix.SIGUSR1 || !slices.Equal(got.StderrTail, p.StderrTail) ||
		!slices.Equal(got.Ports, p.Ports) || got.Err != nil || got.Starts == nil || !slices.Equal(got.Spec(Start{Channel: -1}).Launch.Env, p.launch.Env) {
		t.Errorf("%+v, was %+v", got, p)
	}
	if broken := next.Of(4); broken.Err == nil || broken.Err.Error() != all.Of(4).Err.Error() || broken.Dir() != "" || broken.Args() != nil || broken.Drain(unix.SIGTERM) != unix.SIGTERM {
		t.Errorf("%+v", broken)
	}
	if unknown := next.Of(5); unknown != nil || unknown.Dir() != "" || unknown.Args() != nil || unknown.Unpinned() != nil || unknown.Drain(unix.SIGHUP) != unix.SIGHUP {
		t.Errorf("a generation that was forgotten: %+v", unknown)
	}
}

// What a command goes through at each start anew is known.
func TestUnpinned(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "current")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	p := New().Prepare(1, &process.Command{Args: []string{"/bin/sh", "-c", "cd " + link + "; exit"}, Dir: link}, 0, nil)
	if got := p.Unpinned(); p.Err != nil || !slices.Equal(got, []string{link}) {
		t.Errorf("%q, %v", got, p.Err)
	}
}
