package bindprop

import (
	"fmt"
	"slices"
	"strings"
)

// Difference is a line that is not the same bare and under handoff.
type Difference struct {
	Part          string // of the report
	Label         string
	Bare, Handoff string
	Known         *Known            // why; nil: it should not be
	socket        map[string]string // of a look: all about it, bare
	traced        *traced           // the program's socket; nil: it is about none
}

func (d Difference) String() string {
	return fmt.Sprintf("%-7s %-40s bare: %-30s handoff: %s", d.Part, d.Label, d.Bare, d.Handoff)
}

type line struct{ label, value string }

func linesOf(text string) (list []line) {
	for l := range strings.Lines(text) {
		label, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " = ")
		list = append(list, line{label, value})
	}
	return list
}

// Compare returns what differs.
func Compare(bare, under Report) (list []Difference) {
	c := &comparison{bare: bare, first: traceOf(bare.First), second: traceOf(bare.Second)}
	c.same("first", bare.First, under.First)
	c.same("files", bare.Files, under.Files)
	c.same("alone", bare.Alone, under.Alone)
	c.same("second", bare.Second, under.Second)
	c.beside(bare, under)
	c.same("gone", bare.Gone, under.Gone)
	c.same("left", bare.Left, under.Left)
	return c.list
}

type comparison struct {
	bare          Report
	first, second *trace // of bare.First and bare.Second
	list          []Difference
}

// same compares two parts line by line, and of a look, option by option.
func (c *comparison) same(part, bare, under string) {
	if bare == under {
		return
	}
	theirs := map[string]string{}
	var order []string
	put := func(m map[string]string, text string) {
		for _, l := range linesOf(text) {
			label, n := l.label, 2
			for _, ok := m[label]; ok; _, ok = m[label] {
				label = fmt.Sprint(l.label, " #", n)
				n++
			}
			m[label] = l.value
			order = append(order, label)
		}
	}
	ours := map[string]string{}
	put(ours, bare)
	put(theirs, under)
	seen := map[string]bool{}
	for _, label := range order {
		if seen[label] {
			continue
		}
		seen[label] = true
		a, inBare := ours[label]
		b, inUnder := theirs[label]
		switch {
		case a == b && inBare == inUnder:
		case strings.HasPrefix(label, "look ") && inBare && inUnder:
			c.options(part, label, a, b)
		default:
			c.add(part, label, orMissing(a, inBare), orMissing(b, inUnder))
		}
	}
}

func orMissing(v string, is bool) string {
	if !is {
		return "missing"
	}
	return v
}

func (c *comparison) options(part, label, bare, under string) {
	a, b := fieldsOf(bare), fieldsOf(under)
	for _, f := range strings.Fields(bare + " " + under) {
		name, _, _ := strings.Cut(f, ":")
		if x, y := a[name], b[name]; x != y {
			c.put(Difference{Part: part, Label: label + " " + name, Bare: x, Handoff: y, socket: a})
			b[name] = x // once
		}
	}
}

func fieldsOf(s string) map[string]string {
	m := map[string]string{}
	for _, f := range strings.Fields(s) {
		name, value, _ := strings.Cut(f, ":")
		m[name] = value
	}
	return m
}

// beside: while both run, connections go to the first until the second serves, then to the
// second, and what only the first listens on stays the first's until it has gone.
func (c *comparison) beside(bare, under Report) {
	first, second := valuesOf(bare.Alone), valuesOf(bare.Gone)
	for _, l := range linesOf(under.Beside) {
		want := first[l.label]
		if strings.HasSuffix(l.label, "generation 2") {
			continue // its own port: the turned part has it
		}
		if taken(want) && l.value != want {
			c.add("beside", l.label, want, l.value)
		}
	}
	for _, l := range linesOf(under.Turned) {
		want, ok := second[l.label]
		if !ok {
			want = first[l.label] // a port of the first's own
		}
		if !taken(want) && taken(first[l.label]) {
			want = first[l.label]
		}
		if l.value != want {
			c.add("turned", l.label, want, l.value)
		}
	}
}

func taken(who string) bool { return strings.Contains(who, " taken by ") }

func valuesOf(text string) map[string]string {
	m := map[string]string{}
	for _, l := range linesOf(text) {
		m[l.label] = l.value
	}
	return m
}

func (c *comparison) add(part, label, bare, under string) {
	c.put(Difference{Part: part, Label: label, Bare: bare, Handoff: under})
}

func (c *comparison) put(d Difference) {
	d.traced = c.traced(d)
	d.Known = c.known(d)
	c.list = append(c.list, d)
}

// traced is the program's socket that a difference is about.
func (c *comparison) traced(d Difference) *traced {
	t, label := c.first, d.Label
	switch d.Part {
	case "first":
	case "second":
		t = c.second
	default:
		return nil
	}
	if d.socket != nil { // without the option
		label = label[:strings.LastIndex(label, " ")]
	}
	return t.at[label]
}

// ports are those of the address, or of the socket, that a difference is about.
func (d Difference) ports() (list []string) {
	if p := portIn(d.Label); p != "" {
		list = append(list, p)
	}
	if d.traced != nil {
		list = append(list, d.traced.tried...)
	}
	return slices.DeleteFunc(list, func(p string) bool { return p == "" })
}

// Kind is what two differences of one cause have in common.
func (d Difference) Kind() string {
	label := d.Label
	if f := strings.Fields(label); len(f) > 2 && (d.Part == "first" || d.Part == "second") {
		if label = f[2]; f[0] == "look" {
			label = f[len(f)-1]
		}
		if label == "set" || label == "get" {
			label += " " + f[4]
		}
	} else if len(f) > 0 {
		label = f[0]
	}
	short := func(v string) string {
		if len(v) > 20 {
			v = v[:20]
		}
		return v
	}
	return fmt.Sprintf("%s %s: %s, not %s", d.Part, label, short(d.Handoff), short(d.Bare))
}
