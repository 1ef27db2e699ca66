package reload

import (
	"bytes"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/transcripttest"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what happens now")

// A transcript is a line an event, its answers indented below, and what is under way
// behind a semicolon where it is not idle. `-update` rewrites the answers; the diff is
// the review. Lines:
//
//	hook | no hook
//	order [upgrade] | yes | no REASON | read [upgrade] [changed] | wrong REASON
//	upgrade | upgraded | upgrade failed REASON
//	began N | served N | failed N REASON
//	keeper died | stopping | after DURATION
//	restart [FAILED]   (the next master goes on with the state; the upgrade failed)
//	# comment
func TestTranscripts(t *testing.T) { transcripttest.Run(t, 8, *update, replay) }

func replay(t *testing.T, text string) string {
	var out bytes.Buffer
	m, clock := &Machine{}, time.Unix(0, 0)
	show := func(actions []Action) {
		for _, a := range actions {
			fmt.Fprintf(&out, "    %s\n", say(a))
		}
		if m.Phase != Idle || m.Pending != (Pending{}) {
			fmt.Fprintf(&out, "    ; %v%s\n", m.Phase, sayPending(m.Pending))
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line)
		w := strings.Fields(line)
		if len(w) == 0 || w[0] == "#" {
			continue
		}
		switch w[0] {
		case "hook":
			m.Hook = true
		case "after":
			d, err := time.ParseDuration(w[1])
			if err != nil {
				t.Fatal(err)
			}
			clock = clock.Add(d)
		case "restart":
			var actions []Action
			m, actions = Restore(m.State, m.Hook, strings.Join(w[1:], " "), clock)
			show(actions)
		default:
			show(m.Step(clock, parse(t, strings.TrimSpace(line), w)))
		}
	}
	fmt.Fprintf(&out, "    last: %s\n", sayResult(m.Last))
	return out.String()
}

func parse(t *testing.T, line string, w []string) Event {
	has := func(word string) bool {
		for _, x := range w[1:] {
			if x == word {
				return true
			}
		}
		return false
	}
	number := func() int {
		n, err := strconv.Atoi(w[1])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	rest := func(from int) string { return strings.Join(w[min(from, len(w)):], " ") }
	switch w[0] {
	case "order":
		return Order{Upgrade: has("upgrade")}
	case "yes":
		return Judged{}
	case "no":
		return Judged{Refused: rest(1)}
	case "read":
		return Reread{Upgrade: has("upgrade"), Changed: has("changed")}
	case "wrong":
		return Reread{Wrong: rest(1)}
	case "upgrade":
		if has("failed") {
			return UpgradeEnded{Failed: rest(2)}
		}
		return UpgradeOrder{}
	case "upgraded":
		return UpgradeEnded{}
	case "began":
		return Began{Generation: number()}
	case "served":
		return Ended{Generation: number(), Outcome: Served}
	case "failed":
		return Ended{Generation: number(), Outcome: Failed, Reason: rest(2), Stderr: []string{"last words"}}
	case "keeper":
		return KeeperDied{}
	case "stopping":
		return Stopping{}
	}
	t.Fatalf("unknown line %q", line)
	return nil
}

func say(a Action) string {
	switch a := a.(type) {
	case Ask:
		return fmt.Sprintf("ask the hook about generation %d", a.Generation)
	case ReadAgain:
		return fmt.Sprintf("read the configuration%s", map[bool]string{true: ", then upgrade if the binary has changed"}[a.Upgrade])
	case Reload:
		return "reload"
	case Upgrade:
		return "upgrade"
	case UpgradeFailed:
		return "the upgrade failed: " + a.Reason
	case NotReloaded:
		return fmt.Sprintf("not reloaded, by %s: %s", [...]string{"the hook", "the configuration", "the upgrade"}[a.By], a.Reason)
	case Finished:
		return "finished: " + sayResult(a.Result)
	case ReplaceKeeper:
		return "replace the keeper"
	case Leave:
		return "leave"
	}
	panic(fmt.Sprintf("unknown action %T", a))
}

func sayResult(r Result) string {
	if r.Generation == 0 {
		return "none"
	}
	s := fmt.Sprintf("generation %d %s", r.Generation, r.Outcome)
	if r.Outcome != Running {
		s += " after " + r.Took.String()
	}
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	if len(r.Stderr) > 0 {
		s += " (" + strings.Join(r.Stderr, ", ") + ")"
	}
	return s
}

func sayPending(p Pending) string {
	s := ""
	for _, f := range []struct {
		is   bool
		word string
	}{{p.Upgrade, "upgrade"}, {p.UpgradeAlone, "upgrade alone"}, {p.Ask, "ask"}, {p.Reload, "reload"}, {p.ReplaceKeeper, "replace the keeper"}} {
		if f.is {
			s += ", then " + f.word
		}
	}
	return s
}
