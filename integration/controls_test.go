package integration

import (
	"testing"

	"handoff/internal/load"
)

// The cures taken out, one at a time: what the clients of each would lose. In
// the long run only; the figures stand in DESIGN.md.
func TestLossesWithoutTheCures(t *testing.T) {
	if !*long {
		t.Skip("in the long run only")
	}
	for _, c := range []struct {
		name, node string
		flags      []string
		cfg        load.Config
		loses      bool
	}{
		{"keep-alive, no preload", "node", []string{"--no-preload"}, load.Config{Mode: load.KeepAlive, Clients: 32}, true},
		{"keep-alive, no linger", "node", []string{"--keepalive-linger", "0"}, load.Config{Mode: load.KeepAlive, Clients: 32}, true},
		{"new connections, neither preload nor quiet, Node 26", "node26", []string{"--no-preload", "--quiet-timeout", "0"}, load.Config{Clients: 64}, true},
		{"new connections, no preload but quiet, Node 26", "node26", []string{"--no-preload"}, load.Config{Clients: 64}, false},
		{"new connections, neither preload nor quiet", "node", []string{"--no-preload", "--quiet-timeout", "0"}, load.Config{Clients: 64}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			withNode(t, c.node)
			w := start(t, options{flags: append([]string{"-n", "4"}, c.flags...)})
			run := w.load(c.cfg)
			for range 20 {
				w.reload()
				w.retired(4)
			}
			r := run.Stop()
			t.Log(r)
			if c.loses && r.Lost() == 0 {
				t.Error("nothing is lost without it: is the cure still needed?")
			}
			if !c.loses && r.Lost() > 0 {
				t.Errorf("%d lost", r.Lost())
			}
			w.stop()
		})
	}
}
