package linux

import (
	"os"
	"testing"
)

func TestReserveThreads(t *testing.T) {
	const n = 20
	ReserveThreads(n)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < n {
		t.Errorf("%d threads, %v; want %d or more", len(tasks), err, n)
	}
}
