package repeat

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// A script is who writes what: "1 A" is worker 1 with a line, "1 end" and "1 serves" what
// becomes of it. want is what is passed on.
func TestRepeat(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"the same, one after the other": {"1 A,1 B,1 end,2 A,2 B,2 end,3 A,3 B,3 end", "AB"},
		"the same, at once":             {"1 A,2 A,2 B,1 B,1 C,2 C,1 end,2 end", "ABC"},
		"one differs":                   {"1 A,1 B,1 end,2 A,2 D,2 E,2 end", "ABADE"},
		"and is repeated":               {"1 A,1 B,1 end,2 A,2 D,2 E,2 end,3 A,3 D,3 E,3 end,4 A,4 B,4 end", "ABADE"},
		"one goes on":                   {"1 A,1 end,2 A,2 B,2 end", "AB"},
		"one serves":                    {"1 A,1 B,2 A,2 B,2 serves,2 C,1 serves,1 C", "ABABCC"},
		"from the first line":           {"1 A,2 B,1 end,2 end,3 B,3 end,4 A,4 end", "AB"},
		"one with no line's end":        {"1 A,1 B~,1 end,2 A,2 B~,2 end", "AB"},
		"pids and times":                {"1 at 12:00:01.5 pid 1,2 at 12:00:02.7 pid 2,1 end,2 end", "at 12:00:01.5 pid 1"},
	} {
		starts, workers := New(), map[string]*Writer{}
		var out bytes.Buffer
		for _, who := range []string{"1", "2"} { // these run at once
			workers[who] = starts.Writer(int(who[0]-'0'), &out)
		}
		for _, step := range strings.Split(c.script, ",") {
			who, what, _ := strings.Cut(step, " ")
			w := workers[who]
			if w == nil {
				w = starts.Writer(int(who[0]-'0'), &out)
				workers[who] = w
			}
			switch what {
			case "end":
				w.Flush()
			case "serves":
				w.Serves()
			default:
				text := what + "\n"
				if before, ok := strings.CutSuffix(what, "~"); ok {
					text = before
				}
				w.Write([]byte(text[:1]))
				w.Write([]byte(text[1:]))
			}
		}
		if got := strings.ReplaceAll(out.String(), "\n", ""); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What is held is bounded, and nothing is lost of what differs.
func TestRepeatIsBounded(t *testing.T) {
	starts := New()
	var a, b bytes.Buffer
	one, two := starts.Writer(1, &a), starts.Writer(2, &b)
	want := ""
	for i := range 3 * maxLines {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", 100))
		want += line
		one.Write([]byte(line))
		two.Write([]byte(line))
	}
	long := strings.Repeat("y", 2*maxHeld)
	one.Write([]byte(long))
	two.Write([]byte(long))
	if a.String() != want+long || b.String() != want+long {
		t.Errorf("%d and %d bytes, want %d", a.Len(), b.Len(), len(want+long))
	}
	for range 3 * maxKnown {
		starts.Writer(3, &a).Write([]byte(fmt.Sprintf("another %p\n", &want)))
	}
	if len(starts.known) > maxKnown {
		t.Errorf("%d texts are known", len(starts.known))
	}
}

func TestFailed(t *testing.T) {
	s := New()
	for i, c := range []struct {
		reason, line string
		want         bool
	}{{"code 1", "pid 10: no", false}, {"code 1", "pid 11: no", true}, {"code 1", "pid 12: other", false}, {"code 2", "pid 13: other", false}, {"code 2", "pid 14: other", true}} {
		if got := s.Failed(10+i, c.reason, []string{"a", c.line}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
