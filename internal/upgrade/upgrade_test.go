package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The test binary is the programs: a master that upgrades, and what it upgrades to.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "master":
		master()
	case "changed":
		fmt.Println(Changed())
	default:
		os.Exit(m.Run())
	}
}

// master upgrades once, to whatever is at its own path, and says what comes of it. It is
// what it upgrades to, as well.
func master() {
	explain := Explainer()
	up, err := New(10 * time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	if up.Candidate() {
		state, err := up.State()
		fmt.Printf("candidate of %s, %v\n", state, err)
		if string(state) == "bad" {
			explain(errors.New("what is this?"))
			os.Exit(3) // it does not understand it
		}
		fmt.Println("took over:", up.Take(10*time.Second))
		return
	}
	if err := up.Settle(); err != nil {
		fmt.Println(err)
	}
	for _, state := range os.Args[1:] {
		if state == "gone" {
			os.Args[0] = "/no/such/binary"
		}
		err := up.Start([]byte(state))
		for err != nil && strings.Contains(err.Error(), "process is not ready yet") { // its goroutine has not heard of Settle
			runtime.Gosched()
			err = up.Start([]byte(state))
		}
		if err != nil {
			fmt.Println("refused:", err)
			continue
		}
		fmt.Println("ends")
		os.Exit(0)
	}
}

// program copies the test binary to a name.
func program(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	path := filepath.Join(t.TempDir(), name)
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// quickExit has a program under the race detector end at once, not after a second.
const quickExit = "GORACE=atexit_sleep_ms=0"

func TestUpgrade(t *testing.T) {
	path := program(t, "master")
	for states, want := range map[string][]string{
		"good":     {"candidate of good, <nil>", "ends", "took over: <nil>"},
		"bad good": {"candidate of bad, <nil>", "refused: the new binary " + path + " does not take over: child pid=", "exit status 3: what is this?", "candidate of ", "ends", "took over: <nil>"},
		"gone":     {"refused: cannot run /no/such/binary: "},
	} {
		cmd := exec.Command(path, strings.Fields(states)...)
		cmd.Env = append(os.Environ(), quickExit)
		read, write, err := os.Pipe() // which the candidate has, too: its end is the end of both
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = write, write
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		write.Close()
		read.SetReadDeadline(time.Now().Add(30 * time.Second))
		out, err := io.ReadAll(read)
		cmd.Wait()
		if err != nil {
			t.Fatal(states, err, string(out))
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s: no %q in\n%s", states, w, out)
			}
		}
	}
}

// A binary is another one by what is in it: not for having been copied again.
func TestChanged(t *testing.T) {
	path := program(t, "changed")
	run := func(replace func()) string {
		cmd := exec.Command(path)
		cmd.Env = append(os.Environ(), quickExit)
		if replace != nil {
			// What runs stays, under another name.
			if err := os.Rename(path, path+".running"); err != nil {
				t.Fatal(err)
			}
			cmd.Path = path + ".running"
			replace()
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err, string(out))
		}
		return strings.TrimSpace(string(out))
	}
	self, _ := os.ReadFile("/proc/self/exe")
	for _, c := range []struct {
		what    string
		replace func()
		want    string
	}{
		{"the same file", nil, "false"},
		{"a copy of it", func() { os.WriteFile(path, self, 0o755) }, "false"},
		{"a longer one", func() { os.WriteFile(path, append(bytes.Clone(self), 0), 0o755) }, "true"},
		{"as long, with another build id", func() {
			id := buildID("/proc/self/exe")
			if id == "" {
				t.Skip("the test binary has no build id")
			}
			other := strings.Repeat("x", len(id))
			os.WriteFile(path, bytes.Replace(self, []byte(id), []byte(other), 1), 0o755)
		}, "true"},
		{"nothing there", func() {}, "false"},
	} {
		path = program(t, "changed")
		if got := run(c.replace); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	if buildID("/etc/passwd") != "" || buildID("/no/such") != "" {
		t.Error("a build id of what has none")
	}
}
