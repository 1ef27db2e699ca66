package bindprop

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	pairs  = flag.Int("pairs", 40, "of TestBareIsBare")
	update = flag.Bool("update", false, "write the list of docs/internals/bind.md")
)

// What is compared depends on nothing but the script: two bare runs see the same.
func TestBareIsBare(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs network namespaces of its own: root")
	}
	program, err := Build(t.TempDir())
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip("no C compiler")
	} else if err != nil {
		t.Fatal(err)
	}
	var sides [2]*Bare
	for i := range sides {
		if sides[i], err = NewBare(program, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sides[i].Close)
	}
	steps := 0
	for seed := range *pairs {
		p := Generate(uint64(seed), "")
		steps += p.Steps()
		var reports [2]Report
		var errs [2]error
		var both sync.WaitGroup
		for i, s := range sides {
			parent := t.TempDir()
			both.Go(func() { reports[i], errs[i] = Perform(s, p, parent, 10000+seed%2400*16) })
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(p.First, "\n"))
		}
		for _, d := range Compare(reports[0], reports[1]) {
			t.Errorf("seed %d: %v\n%s", seed, d, strings.Join(p.First, "\n"))
		}
	}
	t.Logf("%d steps", steps)
}

// A script of which two steps matter is shrunk to these.
func TestShrink(t *testing.T) {
	p := Generate(3, "")
	p.First = slices.Concat(p.First, Script{"x"}, p.First, Script{"y"}, p.First)
	p.Second = p.First
	got := Shrink(p, func(p Pair) bool {
		x, y := slices.Index(p.First, "x"), slices.Index(p.First, "y")
		return x >= 0 && y > x
	})
	if want := (Script{"x", "y"}); !slices.Equal(got.First, want) || !slices.Equal(got.Second, want) {
		t.Errorf("%q", got)
	}
}

// The list of known differences is what docs/internals/bind.md says; -update writes it.
func TestKnownDifferencesAreDocumented(t *testing.T) {
	const file, head = "../../docs/internals/bind.md", "| difference | why |\n|---|---|\n"
	var want strings.Builder
	for _, k := range Differences() {
		fmt.Fprintf(&want, "| %s | %s |\n", k.Name, k.Reason)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, said, ok := strings.Cut(string(b), head)
	if !ok {
		t.Fatalf("%s has no table", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+head+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if said != want.String() {
		t.Errorf("%s has\n%s\nwant\n%s\n(-update writes it)", file, said, want.String())
	}
}
