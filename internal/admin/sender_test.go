package admin

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"handoff/internal/api"
)

// An order of a process that a worker has started is logged as that worker's; another
// one's is not.
func TestOrderOfAWorker(t *testing.T) {
	worker := exec.Command("sh", "-c", "sleep 100 & echo $!; wait")
	out, err := worker.StdoutPipe()
	if err == nil {
		err = worker.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 20)
	n, _ := out.Read(buf)
	child := strings.TrimSpace(string(buf[:n]))
	t.Cleanup(func() {
		exec.Command("kill", child).Run()
		worker.Wait()
	})
	var log bytes.Buffer
	c := &script{status: api.Status{Workers: []api.WorkerStatus{{PID: worker.Process.Pid, Slot: 3, Worker: 7}}}}
	s := &server{control: c, about: About{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	r, _ := http.NewRequest(http.MethodPost, "http://handoff/v1/scale?by=1", nil)
	s.attribute(r, os.Getppid())
	if log.Len() > 0 {
		t.Errorf("somebody else's: %s", &log)
	}
	for _, pid := range []int{worker.Process.Pid, pidOf(child)} {
		log.Reset()
		if s.attribute(r, pid); !strings.Contains(log.String(), "slot=3") || !strings.Contains(log.String(), "worker=7") || !strings.Contains(log.String(), `request="POST /v1/scale?by=1"`) {
			t.Errorf("of %d: %s", pid, &log)
		}
	}
}

func pidOf(text string) int {
	pid, _ := strconv.Atoi(text)
	return pid
}
