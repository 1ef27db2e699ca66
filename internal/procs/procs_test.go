package procs

import (
	"os"
	"syscall"
	"testing"
)

func TestWalkFindsThisProcess(t *testing.T) {
	found := false
	Walk(func(p Process) {
		if p.PID == os.Getpid() {
			found = p.RSS > 1<<20 && p.Group == syscall.Getpgrp()
		}
	})
	if !found {
		t.Error("this process is not there, or wrong")
	}
}

func TestParse(t *testing.T) {
	p, ok := parse("7 (a) b) S 1 42 0 0 0 0 0 0 0 0 150 50 0 0 0 0 0 0 0 0 3 0", 4096)
	if !ok || p.Group != 42 || p.CPU != 2 || p.RSS != 3*4096 {
		t.Errorf("%+v %v", p, ok)
	}
	if _, ok := parse("7 (a", 1); ok {
		t.Error("half a line")
	}
}
