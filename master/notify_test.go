package master

import (
	"os"
	"testing"
)

func TestParseNotice(t *testing.T) {
	for text, want := range map[string]notice{
		"READY=1":                          {ready: true},
		"READY=1\nSTATUS=warm\n":           {ready: true, status: "warm"},
		"STOPPING=1\nREADY=0":              {stopping: true},
		"MAINPID=1\nFDSTORE=1\nnonsense\n": {},
		"":                                 {},
	} {
		if got := parseNotice(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestDescends(t *testing.T) {
	if !descends(os.Getpid(), os.Getppid()) || !descends(os.Getpid(), os.Getpid()) {
		t.Error("a child does not descend from its parent")
	}
	if descends(1, os.Getpid()) || descends(0, os.Getpid()) || descends(1<<22, os.Getpid()) {
		t.Error("a stranger descends from us")
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=\xff")
	f.Fuzz(func(t *testing.T, s string) { parseNotice(s) })
}
