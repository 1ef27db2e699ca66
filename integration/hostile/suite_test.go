// Package hostile attacks a real handoff, or gives it a bad day, and counts what others
// lose: the clients of other workers, of later ones, of other services.
//
//	go test ./integration/hostile                                            the short rows, as CI does
//	go test ./integration/hostile -run 'TestHostile/worker/lock-filter' -v   one row
//	go test ./integration/hostile -long -table                               all, and docs/security.md
package hostile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	long  = flag.Bool("long", false, "all rows, not the short ones alone, and each in every setup")
	table = flag.Bool("table", false, "write the rows that run into docs/security.md")
)

// row is one attack, or one bad day.
type row struct {
	group string // worker, channel, user, day
	name  string
	tries string // what the attacker or the day does, in one sentence
	short bool   // CI runs it; a few seconds
	alone bool   // not beside others: it takes what the machine has
	run   func(t *testing.T, r *report)
}

// rows are all rows, in the order of the table. Each function is a file.
func rows() []row {
	return slices.Concat(workerRows(), channelRows(), userRows(), limitsRows(), networkRows())
}

// report is what a row has seen.
type report struct {
	mu       sync.Mutex // guards the rest
	requests int64      // of others
	lost     int64      // of those: refused, reset, timed out, or answered wrongly
	own      int64      // lost by clients of the attacker's own slot, where it can be told
	stale    int64      // answered by the version before, after the one of now had answered
	log      string     // the line that an operator would see
	limit    string     // why it cannot be prevented
}

// count adds what others had, and what they and the attacker's own clients lost.
func (r *report) count(requests, lost, own int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests += requests
	r.lost += lost
	r.own += own
}

// late adds requests that the version before has answered.
func (r *report) late(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale += n
}

// says sets what the log says; the first that is not empty counts.
func (r *report) says(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log == "" {
		r.log = line
	}
}

// documented makes the row a documented limit: what is lost is reported, and is no failure,
// unless it is lost after the attack.
func (r *report) documented(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = why
}

// result is a column of the table.
func (r *report) result() string {
	s := fmt.Sprintf("%d of %d", r.lost, r.requests)
	if r.own > 0 {
		s += fmt.Sprintf("; %d of the attacker's own slot", r.own)
	}
	if r.stale > 0 {
		s += fmt.Sprintf("; %d answered by the version before", r.stale)
	}
	return s
}

func TestHostile(t *testing.T) {
	for _, group := range groups {
		t.Run(group, func(t *testing.T) {
			for _, r := range rows() {
				if r.group == group {
					t.Run(r.name, func(t *testing.T) { run(t, r) })
				}
			}
		})
	}
}

// run runs a row, if it is wanted: a short one, any with -long, and one that -run names.
func run(t *testing.T, w row) {
	if !w.short && !*long && !strings.Contains(flag.Lookup("test.run").Value.String(), w.name) {
		t.Skip("not a short row: -long runs it, or its name in -run")
	}
	if !w.alone {
		t.Parallel()
	}
	r := &report{}
	w.run(t, r)
	t.Logf("%s: lost %s; log: %s %s", w.tries, r.result(), r.log, r.limit)
	if r.requests == 0 && !t.Failed() {
		t.Error("the row has counted no request")
	}
	if r.lost > 0 && r.limit == "" {
		t.Errorf("others lost %d of %d requests", r.lost, r.requests)
	}
	if *table && !t.Failed() && !t.Skipped() {
		writeLine(t, w, r)
	}
}

// The table has exactly the rows that exist: after a change, run them with -table.
func TestTable(t *testing.T) {
	text := read(t)
	for _, group := range groups {
		var want []string
		for _, r := range rows() {
			if r.group == group {
				want = append(want, r.name)
			}
		}
		_, lines, _ := section(t, text, group)
		var got []string
		for _, l := range lines {
			got = append(got, nameOf(l))
		}
		if !slices.Equal(got, want) {
			t.Errorf("docs/security.md has of the group %s the rows\n%q, want\n%q:\ngo test ./integration/hostile -long -table -run TestHostile/%s", group, got, want, group)
		}
	}
}

// Each row can be named, and says what it does.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		key := r.group + "/" + r.name
		if seen[key] || !slices.Contains(groups, r.group) || strings.ContainsAny(r.name, " /|") || r.name == "" || r.tries == "" || strings.Contains(r.tries, "\n") {
			t.Errorf("%s: a row has a group of %q, a name of its own without spaces, and one sentence of what it tries", key, groups)
		}
		seen[key] = true
	}
}

// groups are the groups of the table, each between two markers in docs/security.md.
var groups = []string{"worker", "channel", "user", "day"}

// page is where the tables are.
var page = filepath.Join("..", "..", "docs", "security.md")

// writing guards the page: rows run at once.
var writing sync.Mutex

// writeLine puts the row's line into its table, in the order of rows.
func writeLine(t *testing.T, w row, r *report) {
	writing.Lock()
	defer writing.Unlock()
	text := read(t)
	before, lines, after := section(t, text, w.group)
	said := r.log
	if r.limit != "" {
		said = strings.TrimSpace(said + " *Limit: " + r.limit + "*")
	}
	cells := []string{"`" + w.name + "`", w.tries, r.result(), said}
	for i, c := range cells {
		cells[i] = strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(c)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return nameOf(l) == w.name })
	lines = append(lines, "| "+strings.Join(cells, " | ")+" |")
	var sorted []string // those of rows that are gone are left out
	for _, o := range rows() {
		for _, l := range lines {
			if o.group == w.group && nameOf(l) == o.name {
				sorted = append(sorted, l)
			}
		}
	}
	if err := os.WriteFile(page, []byte(before+strings.Join(append(sorted, ""), "\n")+after), 0o644); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T) string {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section cuts the page into the lines of a group's table, and what is before and after.
func section(t *testing.T, text, group string) (before string, lines []string, after string) {
	head := "<!-- hostile " + group + " -->\n\n| attack | what it tries | others lost | what the log says |\n|---|---|---|---|\n"
	before, rest, found := strings.Cut(text, head)
	body, after, ended := strings.Cut(rest, "\n<!-- end -->")
	if !found || !ended {
		t.Fatalf("docs/security.md has no table between %q and an end", head)
	}
	for l := range strings.SplitSeq(body, "\n") {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return before + head, lines, "\n<!-- end -->" + after
}

// nameOf is the name of a line's row.
func nameOf(line string) string {
	_, name, _ := strings.Cut(line, "`")
	name, _, _ = strings.Cut(name, "`")
	return name
}
