package handoff

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
)

// The programs are bit for bit what they were: two masters, old and new, must agree
// where a client goes.
func TestProgramsAreWhatTheyWere(t *testing.T) {
	var got strings.Builder
	write := func(name string, p program) {
		fmt.Fprintf(&got, "%s\n", name)
		raw := make([]bpf.RawInstruction, len(p))
		for i, in := range p {
			raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
		}
		if list, ok := bpf.Disassemble(raw); !ok {
			t.Errorf("%s: not all is an instruction: %v", name, list)
		}
		for _, i := range p {
			fmt.Fprintf(&got, "\t%04x %d %d %08x\n", i.Code, i.Jt, i.Jf, i.K)
		}
	}
	const unserved = -1
	one := func(targets []int) (slots [][]int) {
		for _, index := range targets {
			if index == unserved {
				slots = append(slots, nil)
			} else {
				slots = append(slots, []int{index})
			}
		}
		return slots
	}
	for _, indexes := range [][]int{{0}, {3}, {0, 1}, {2, 3, 4, 5}, {0, 2}, {1, 4, 5, 9}} {
		write(fmt.Sprintf("random %v", indexes), randomProgram(one(indexes)))
	}
	for _, targets := range [][]int{{0}, {2}, {0, 1}, {4, 5, 6, 7}, {unserved, 1}, {0, unserved, 2}, {unserved, 3, unserved, 1, 0}} {
		write(fmt.Sprintf("sticky %v", targets), stickyProgram(one(targets)))
	}
	for _, slots := range [][][]int{{{0, 1, 4}, {2}}, {{0}, nil, {1, 3}}} {
		write(fmt.Sprintf("random %v", slots), randomProgram(slots))
		write(fmt.Sprintf("sticky %v", slots), stickyProgram(slots))
	}
	const file = "testdata/programs.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the programs differ from %s:\n%s", file, got.String())
	}
}

// wait is for failure only.
const wait = 20 * time.Second

var update = flag.Bool("update", false, "write what is compared")
