package main

import (
	"os"
	"strings"
	"testing"
)

// A shell that completes is offered what is allowed at its place, and files only where one
// is wanted.
func TestCompletion(t *testing.T) {
	t.Setenv("HANDOFF_RUNTIME_DIR", t.TempDir())
	t.Chdir(t.TempDir())
	serves(t, "api")
	serves(t, "web")
	const file, no, dir, glued = ":0", ":4", ":16", ":6"
	for _, c := range []struct{ line, want string }{
		{"status |", "api web " + no},
		{"status web |", no},
		{"status w|", "api web " + no}, // the shell picks by the beginning
		{"ls |", no},
		{"scale |", "api web " + no},
		{"scale 2 |", "api web " + no},
		{"scale -1 |", "api web " + no},
		{"scale web |", no},
		{"restart web |", "0 1 " + no},
		{"restart 0 |", "api web " + no},
		{"restart 0 web |", no},
		{"import |", "pm2 " + no},
		{"import pm2 |", file},
		{"run |", file},
		{"run --|", "--max-memory --watch"},
		{"run server.js --|", file}, // what follows the program is its own
		{"run -- |", file},
		{"run --contract |", "auto node bind activation " + no},
		{"run --contract=|", "auto node bind activation " + no},
		{"run --log |", "auto text json rackman " + no},
		{"run --log-level |", "debug info warn error " + no},
		{"run --balance |", "even sticky shared " + no},
		{"run --strategy |", "all slot " + no},
		{"run --ready-when |", "listening started ready " + no},
		{"run --capture |", "none prefix json files " + no},
		{"run --workers |", "max max-1"},
		{"run --config |", file},
		{"run --cwd |", dir},
		{"run --name |", no},
		{"run --ready-timeout |", no},
		{"run --drain-signal |", "auto TERM INT QUIT"},
		{"run --pdeathsig |", "TERM INT QUIT HUP USR1 USR2 WINCH KILL " + no},
		{"run --hook |", "cluster.started="},
		{"logs --slot |", no},
		{"head |", dir},
		{"switch |", dir},
		{"doctor |", no},
		{"stop --|", "--now --timeout"},
		{"help |", "status stop"},
		{"nonsense |", file},
	} {
		words := strings.Fields(strings.TrimSuffix(c.line, "|"))
		typed := ""
		if !strings.HasSuffix(c.line, " |") {
			words, typed = words[:len(words)-1], words[len(words)-1]
		}
		out, _, code := handoff(t, append(append([]string{"__completeNoDesc"}, words...), typed)...)
		got := strings.Join(strings.Fields(out), " ")
		ok := got == c.want
		if !strings.Contains(c.want, ":") { // some of many
			ok = strings.HasSuffix(got, no) || strings.HasSuffix(got, glued)
			for _, word := range strings.Fields(c.want) {
				ok = ok && strings.Contains(" "+got+" ", " "+word+" ")
			}
		}
		if code != 0 && !strings.HasPrefix(c.line, "nonsense") || !ok {
			t.Errorf("%s %d, %q; want %q", c.line, code, got, c.want)
		}
	}
	os.Mkdir("from", 0o755)
	os.Mkdir("srv", 0o755)
	os.WriteFile("from/app.js", nil, 0o644)
	t.Chdir("srv")
	for _, line := range []string{"setup", "deploy --from ../from v1", "deploy --from ../from v2"} {
		if _, errs, code := handoff(t, strings.Fields(line)...); code != 0 {
			t.Fatalf("%s: %s", line, errs)
		}
	}
	if out, _, _ := handoff(t, "__complete", "switch", ""); !strings.HasPrefix(out, "v1\nv2\tlive\n:4\n") {
		t.Errorf("versions: %q", out)
	}
}
