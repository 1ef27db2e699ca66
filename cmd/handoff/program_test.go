package main

import (
	"os"
	"path/filepath"
	"testing"

	"handoff/internal/cmsg"
	"handoff/internal/service"
)

// A reload reads the configuration again whatever the keeper is doing: a stopped one
// would hold up the loop, and one that is dead is no reason not to reload.
func TestRereadDoesWithoutTheKeeper(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "handoff.toml")
	if err := os.WriteFile(file, []byte("command = [\"/bin/true\"]\nworkers = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := service.Program{From: []byte(dir), Here: []byte(dir), Dir: []byte(dir), Args: [][]byte{[]byte("/bin/true")},
		Config: []byte(file), Text: []byte("command = [\"/bin/true\"]\nworkers = 1\n")}
	full := filepath.Join(dir, "keeper") // a keeper that reads nothing
	keeper, err := cmsg.Listen(full)
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	c, err := cmsg.Dial(full)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for err = nil; err == nil; {
		_, err = c.WriteNow([]byte("X"))
	}
	for what, socket := range map[string]string{"stopped": full, "dead": filepath.Join(dir, "nobody")} {
		t.Setenv("NOTIFY_SOCKET", socket)
		cfg, program, err := reconfigure(nil, before)
		if err != nil || cfg.Workers != "3" || string(program.Config) != file {
			t.Errorf("with a keeper that is %s: %v, %+v", what, err, program)
		}
	}
}
