package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// page is where the tables are.
var page = filepath.Join("..", "..", "docs", "programs.md")

const columns = "| program | contract | options | new connections: requests | lost | kept: requests | lost | longest answer, ms | | measured |\n|---|---|---|---|---|---|---|---|---|---|\n"

// line is the row in the table.
func (r row) line(res result) string {
	options := ""
	if len(r.flags) > 0 {
		options = "`" + strings.Join(r.flags, " ") + "`"
	}
	contract := "bind"
	if r.args[0] == "node" || strings.HasSuffix(r.args[0], ".js") {
		contract = "node"
	}
	var notes []string
	if res.bare.requests > 0 {
		notes = append(notes, fmt.Sprintf("bare, %d stops: %d kept lost", bareStops, res.bare.lost))
	}
	for _, n := range []string{r.limit, r.note} {
		if n != "" {
			notes = append(notes, n)
		}
	}
	if r.getOnly && r.asks == nil && res.kept.requests > 0 {
		notes = append(notes, "GET only")
	}
	kept := []string{"", "", ""}
	if res.kept.requests > 0 {
		kept = []string{number(res.kept.requests), res.kept.losses(), fmt.Sprintf("%d (%d)", res.kept.longest.Milliseconds(), res.quiet.Milliseconds())}
	}
	if *long && res.kept.requests == res.kept.late {
		notes = append(notes, "it keeps no connection")
	}
	measured := fmt.Sprintf("%s, %d, %s", built, res.reloads, res.machine)
	return cells(r.name, contract, options, number(res.fresh.requests), res.fresh.losses(), kept[0], kept[1], kept[2], strings.Join(notes, "; "), measured)
}

// unmeasured is the line of a program that could not be.
func (r row) unmeasured(why string) string {
	return cells(r.name, "", "", "", "", "", "", "", "not measured: "+why, built)
}

func cells(texts ...string) string {
	for i, c := range texts {
		texts[i] = strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(c)
	}
	return "| " + strings.Join(texts, " | ") + " |"
}

// built is the commit that handoff was built from.
var built string

// commit is that of the tree.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=7", "HEAD").Output()
	if err != nil {
		return "no commit"
	}
	return strings.TrimSpace(string(out))
}

// number has a space before each three digits.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// writeLine puts the row's line into its table, in the order of rows. One that was measured before
// stays, unless it is to be replaced.
func writeLine(t *testing.T, r row, line string, replace bool) {
	lock, err := os.Open(page)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX) // of another run; until it is closed
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer lock.Close()
	before, lines, after := section(t, r.kind)
	if !replace && slices.ContainsFunc(lines, func(l string) bool { return nameOf(l) == r.name }) {
		return
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return nameOf(l) == r.name })
	lines = append(lines, line)
	var sorted []string // those of rows that are gone are left out
	for _, o := range rows() {
		for _, l := range lines {
			if o.kind == r.kind && nameOf(l) == o.name {
				sorted = append(sorted, l)
			}
		}
	}
	if err := os.WriteFile(page, []byte(before+strings.Join(sorted, "\n")+after), 0o644); err != nil {
		t.Error(err)
	}
}

// section cuts the page into the lines of a kind's table, and what is before and after.
func section(t *testing.T, k kind) (before string, lines []string, after string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head := "<!-- programs " + string(k) + " -->\n\n" + columns
	before, rest, found := strings.Cut(string(text), head)
	body, after, ended := strings.Cut(rest, "\n<!-- end -->")
	if !found || !ended {
		t.Fatalf("docs/programs.md has no table between %q and an end", head)
	}
	for l := range strings.SplitSeq(body, "\n") {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return before + head, lines, "\n<!-- end -->" + after
}

func nameOf(line string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
	return name
}

// The tables have only rows that exist, in their order.
func TestTable(t *testing.T) {
	for _, k := range []kind{tcp, path, udp} {
		var known, got []string
		for _, r := range rows() {
			if r.kind == k {
				known = append(known, r.name)
			}
		}
		_, lines, _ := section(t, k)
		for _, l := range lines {
			got = append(got, nameOf(l))
		}
		want := slices.DeleteFunc(slices.Clone(known), func(n string) bool { return !slices.Contains(got, n) })
		if !slices.Equal(got, want) {
			t.Errorf("docs/programs.md has of %s the rows\n%q, want\n%q", k, got, want)
		}
	}
}
