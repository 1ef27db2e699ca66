package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
		{"completion |", "bash zsh fish powershell " + no},
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

// bash completes without the package bash-completion: words are whole that it splits, and
// what stands behind the cursor does not count.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	script, errs, code := handoff(t, "completion", "bash")
	if code != 0 || !strings.Contains(script, "complete -o default -F __start_handoff handoff") {
		t.Fatalf("%d %s", code, errs)
	}
	if _, errs, code := handoff(t, "completion", "nosuch"); code != exitUsage || !strings.Contains(errs, `unknown shell "nosuch"; one of bash, zsh, fish, powershell`) {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := handoff(t, "completion"); code != exitUsage || !strings.Contains(errs, "name one shell: bash") {
		t.Errorf("%d %s", code, errs)
	}
	os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600)
	for _, c := range []struct{ line, words, got, offered, want string }{
		{"handoff sta", "handoff sta", "sta", "status\tShow", "status"},
		{"handoff run --contract=b", "handoff run --contract = b", "run --contract=b", "bind", "bind"},
		{"handoff run  --listen=unix:/a --contract ", "handoff run --listen = unix : /a --contract ''", "run --listen=unix:/a --contract", "", ""},
		{"handoff ls --js| more", "handoff ls --js more", "ls --js", "--json", "--json"},
		{"handoff switch s", "handoff switch s", "switch s", ":16", "src"},
	} {
		line, _, _ := strings.Cut(c.line, "|")
		os.Mkdir(filepath.Join(dir, "src"), 0o755)
		cmd := exec.Command(bash, "--norc", "--noprofile", "-c", `
			source ./script
			handoff() { shift; printf '%s' "$*" > got; printf '%s\n' "$OFFERED"; }
			compopt() { :; }
			COMP_LINE=${LINE/|/} COMP_POINT=$POINT COMP_TYPE=9
			eval "COMP_WORDS=($WORDS)"; COMP_CWORD=$CWORD
			__start_handoff
			printf '%s ' "${COMPREPLY[@]}"`)
		words := strings.Fields(c.words)
		cword := len(words) - 1
		if strings.HasSuffix(c.words, " more") {
			cword--
		}
		cmd.Dir = dir
		cmd.Env = []string{"LINE=" + c.line, "POINT=" + strconv.Itoa(len(line)), "WORDS=" + c.words, "CWORD=" + strconv.Itoa(cword), "OFFERED=" + c.offered, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		got, _ := os.ReadFile(filepath.Join(dir, "got"))
		if err != nil || strings.Join(strings.Fields(string(out)), " ") != c.want || strings.TrimSpace(string(got)) != c.got {
			t.Errorf("%s: %v %q, asked for %q", c.line, err, out, got)
		}
	}
}
