package integration

import (
	"testing"

	"handoff/internal/load"
)

// Ablation: each mitigation switched off, one at a time, and what clients lose
// without it. With -long only; the figures stand in docs/internals/drain.md.
func TestAblation(t *testing.T) {
	if !*long {
		t.Skip("with -long only")
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
			w := start(t, options{flags: append([]string{"-n", "4"}, c.flags...), env: nodeEnv(t, c.node)})
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
