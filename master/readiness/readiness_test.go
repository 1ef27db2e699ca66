package readiness

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"handoff/internal/transcripttest"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what happens now")

// A transcript is a line an event, what is decided indented below. Lines:
//
//	slots N | live GEN
//	served SLOT ADDRESS…       (what its worker in service accepts on)
//	closed SLOT ADDRESS        (its socket is not open any more, which only a look finds)
//	dies SLOT                  (it is in service no longer)
//	start ID SLOT GEN
//	listens ID ADDRESS… | own ID | says ID
//	closes ID ADDRESS
//	recheck ID | ended ID
//	drop ADDRESS               (it may be)
//	next                       (the master has died: another one goes on)
//	after DURATION             (runs every deadline on the way)
func TestTranscripts(t *testing.T) { transcripttest.Run(t, 6, *update, replay) }

// world is what a transcript says.
type world struct {
	live, slots int
	service     map[int][]Address
	closed      map[int][]Address
	accepts     map[ID][]Address
	dropped     []Address
}

func (w *world) Accepts(id ID) []Address { return w.accepts[id] }
func (w *world) Live() int               { return w.live }
func (w *world) Slots() int              { return w.slots }
func (w *world) MayDrop(a Address) bool  { return slices.Contains(w.dropped, a) }
func (w *world) InService(checked bool) (all []Service) {
	for slot := range w.slots {
		at, ok := w.service[slot]
		if checked {
			at = slices.DeleteFunc(slices.Clone(at), func(a Address) bool { return slices.Contains(w.closed[slot], a) })
		}
		if ok {
			all = append(all, Service{slot, at})
		}
	}
	return all
}

// addresses reads 127.0.0.1:80, udp:127.0.0.1:53, only:[::]:80, /path.
func addresses(words []string) (all []Address) {
	for _, word := range words {
		a := Address{Key: word, Name: word}
		rest := word
		if rest, a.UDP = strings.CutPrefix(rest, "udp:"); a.UDP {
			word = rest
		}
		word, a.Only = strings.CutPrefix(word, "only:")
		if at, err := netip.ParseAddrPort(word); err == nil {
			a.At = at
		}
		all = append(all, a)
	}
	return all
}

func replay(t *testing.T, text string) string {
	var out bytes.Buffer
	w := &world{slots: 1, service: map[int][]Address{}, closed: map[int][]Address{}, accepts: map[ID][]Address{}}
	starts := map[ID]Worker{}
	r := New(nil)
	clock := time.Unix(0, 0)
	say := func(v Verdict) {
		switch {
		case v.Ready && v.Lacks != "":
			fmt.Fprintf(&out, "    %d is ready, but %s\n", v.ID, v.Lacks)
		case v.Ready:
			fmt.Fprintf(&out, "    %d is ready\n", v.ID)
		case v.Say:
			fmt.Fprintf(&out, "    says: %d %s\n", v.ID, v.Lacks)
		default:
			fmt.Fprintf(&out, "    %d %s\n", v.ID, v.Lacks)
		}
	}
	judge := func() {
		for _, v := range r.Judge(clock, w) {
			say(v)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line)
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		n := 0
		if len(f) > 1 {
			n, _ = strconv.Atoi(f[1])
		}
		id, rest := ID(n), addresses(f[min(2, len(f)):])
		switch f[0] {
		case "slots":
			w.slots = n
		case "live":
			w.live = n
		case "served":
			w.service[n] = rest
		case "closed":
			w.closed[n] = append(w.closed[n], rest...)
		case "dies":
			r.Note(w.InService(false))
			delete(w.service, n)
		case "start":
			slot, _ := strconv.Atoi(f[2])
			gen, _ := strconv.Atoi(f[3])
			starts[id] = Worker{id, slot, gen}
		case "listens", "own", "says":
			w.accepts[id] = append(w.accepts[id], rest...)
			r.Claimed(clock, starts[id], map[string]Claim{"listens": Listens, "own": Own, "says": Says}[f[0]])
			judge()
		case "closes":
			w.accepts[id] = slices.DeleteFunc(w.accepts[id], func(a Address) bool { return slices.Contains(rest, a) })
		case "recheck":
			if v, lost := r.Recheck(clock, id, w); lost {
				say(v)
			}
		case "ended":
			r.Ended(id)
		case "drop":
			w.dropped = append(w.dropped, addresses(f[1:])...)
		case "next":
			r = New(r.State())
		case "after":
			d, err := time.ParseDuration(f[1])
			if err != nil {
				t.Fatal(err)
			}
			end := clock.Add(d)
			for next := r.Deadline(); !next.IsZero() && !next.After(end); next = r.Deadline() {
				if clock = next; true {
					before := out.Len()
					judge()
					if happened := out.String()[before:]; happened != "" {
						out.Truncate(before)
						fmt.Fprintf(&out, "    at %v\n%s", clock.Sub(time.Unix(0, 0)), happened)
					}
				}
				if r.Deadline().Equal(next) {
					t.Fatalf("%q: it asks for %v again", line, next)
				}
			}
			clock = end
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return out.String()
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"[::]:80", "0.0.0.0:80", true},
		{"[::]:80", "[::1]:80", true},
		{"0.0.0.0:80", "[::]:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"only:[::]:80", "127.0.0.1:80", false},
		{"only:[::]:80", "[::1]:80", true},
		{"only:[::]:80", "[::]:80", false},
		{"[::]:80", "only:[::]:80", true},
		{"0.0.0.0:80", "only:[::]:80", false},
		{"0.0.0.0:80", "[::1]:80", false},
		{"127.0.0.1:80", "0.0.0.0:80", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"0.0.0.0:81", "127.0.0.1:80", false},
		{"udp:0.0.0.0:80", "127.0.0.1:80", false},
		{"udp:0.0.0.0:80", "udp:127.0.0.1:80", true},
		{"/run/a", "/run/a", true},
		{"/run/a", "/run/b", false},
		{"/run/a", "127.0.0.1:80", false},
	} {
		if got := addresses([]string{c.a})[0].Covers(addresses([]string{c.b})[0]); got != c.want {
			t.Errorf("%s covers %s: %v", c.a, c.b, got)
		}
	}
}
