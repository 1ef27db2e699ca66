package integration

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Strict clients of HTTP/3 lose nothing in reloads: with new connections, with kept ones,
// and with such as change their port, also in the middle of a response.
func TestHTTP3(t *testing.T) {
	server, client := buildHTTP3(t, "../examples/http3"), buildHTTP3(t, "testdata/http3")
	port := freePort(t)
	w := start(t, options{app: []string{server}, env: []string{"PORT=" + port}, flags: []string{"-n", "2", "--ready-when", "ready"}})
	clients := exec.Command(client, "-addr", "127.0.0.1:"+port, "-each", "1")
	clients.Stderr = os.Stderr
	in, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() // ends them
	pipe, err := clients.StdoutPipe()
	if err == nil {
		err = clients.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if _, err := out.ReadString('\n'); err != nil { // they ask
		t.Fatal(err)
	}
	reloads := times(20, 2)
	for i := range reloads {
		w.reload()
		w.retired(2)
		if i%5 == 1 {
			w.killMaster()
		}
	}
	in.Close()
	var counts map[string]struct {
		Asked, Lost, Connections, Moves, Generations int
		LongestAnswer                                time.Duration
		Errors                                       []string
	}
	err = json.NewDecoder(out).Decode(&counts)
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	if err != nil || len(counts) != 5 {
		t.Fatalf("%v: %v", counts, err)
	}
	for kind, c := range counts {
		t.Logf("%s: %d asked, %d lost, %d connections, %d moves, longest %v", kind, c.Asked, c.Lost, c.Connections, c.Moves, c.LongestAnswer)
		for _, e := range c.Errors {
			t.Errorf("%s: %s", kind, e)
		}
		if c.Lost > 0 || c.Asked == 0 || kind == "fresh" && c.Generations != reloads+1 || kind != "fresh" && kind != "kept" && c.Moves == 0 {
			t.Errorf("%s: %+v", kind, c)
		}
	}
	w.stop()
}

// buildHTTP3 builds a program of a module of its own, which has quic-go.
func buildHTTP3(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), filepath.Base(dir))
	cmd := goBuild("-C", dir, "-o", bin, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("cannot build %s (it needs quic-go from a module proxy): %s", dir, out)
		}
		t.Fatalf("cannot build %s: %v\n%s", dir, err, out)
	}
	return bin
}
