package health

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the transcripts")

// Transcripts: what happens, and indented what follows. Times are since the beginning.
//
//	ready 1          a worker seems ready
//	serves 1         it has served before this master
//	after 2s         time passes; who is due then is checked
//	pass 1, fail 1 WHY
//	ended 1
func TestTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				os.WriteFile(file, []byte(got), 0o644)
			} else if got != string(want) {
				t.Errorf("it is now:\n%s", got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	began := time.Unix(1000, 0)
	now := began
	r := New(Config{Interval: 2 * time.Second, Rise: 2, Fall: 3, StartPeriod: 3 * time.Second})
	for lines := bufio.NewScanner(strings.NewReader(script)); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&out, line)
		words := append(strings.Fields(line), "", "")
		var id ID
		fmt.Sscan(words[1], &id)
		failure := ""
		switch words[0] {
		case "", "#":
			continue
		case "ready":
			fmt.Fprintln(&out, "\tmay serve:", r.Ready(now, id))
		case "serves":
			r.Serves(now, id)
		case "ended":
			r.Ended(id)
		case "off":
			r.Configure(Config{})
		case "after":
			d, err := time.ParseDuration(words[1])
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
		case "fail":
			failure = strings.TrimSpace(strings.Join(words[2:], " "))
			fallthrough
		case "pass":
			if v, news := r.Checked(now, id, failure); news {
				fmt.Fprintf(&out, "\t%s %d %s\n", [...]string{"passed", "refused", "unwell", "well"}[v.Kind], v.ID, v.Reason)
			}
		default:
			t.Fatalf("what is %q?", line)
		}
		for _, id := range r.Due(now) {
			fmt.Fprintln(&out, "\tcheck", id)
		}
		next := "never"
		if d := r.Deadline(); !d.IsZero() {
			next = fmt.Sprint(d.Sub(began))
		}
		fmt.Fprintf(&out, "\tnext %s, unwell %v%s\n", next, r.Unwell(), failing(r, id))
	}
	return out.String()
}

func failing(r *Room, id ID) string {
	if why := r.Failing(id); why != "" {
		return ", fails: " + why
	}
	return ""
}
