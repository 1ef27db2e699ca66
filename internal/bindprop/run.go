package bindprop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Side is where programs run: bare, or under a handoff. Its own network namespace has
// nothing else in it.
type Side interface {
	// Begin prepares for a pair of scripts, Finish ends what it has left.
	Begin() error
	Finish() error
	// Start starts the program of a generation, 1 or 2. Serve is called when its script is
	// done: it is ready, and connections go to it. End ends it.
	Start(generation int) (*Leader, error)
	Serve(generation int) error
	End(generation int, l *Leader) error
	// Prober is a process that is no program of the side's.
	Prober() *Leader
	// Bare: the second generation starts after the first has ended.
	Bare() bool
}

// Report is what was seen, each part as lines "LABEL = VALUE".
type Report struct {
	First, Second string // what the programs say
	Files         string // that the first one has made
	Alone         string // who can connect while only the first runs
	Beside        string // while the second runs beside it, and does not serve yet
	Turned        string // when the second serves
	Gone          string // when the first has ended; bare it never was
	Left          string // the files that are left in the end
}

// run is one pair on one side.
type run struct {
	side    Side
	dir     string
	base    [3]int // of the ports, by generation
	live    [3]*Leader
	token   int
	serving int // generation
	targets []target
}

// patience is how long nobody has got a connection before nobody will: loopback delivers
// at once.
const patience = 300 * time.Millisecond

type target struct{ kind, addr, label string }

// Perform runs a pair on a side, in a folder that it makes and removes. From base on, 16
// ports are unused there.
func Perform(side Side, p Pair, parent string, base int) (rep Report, err error) {
	r := &run{side: side, base: [3]int{0, base, base}}
	if side.Bare() {
		r.base[2] += 8 // what is left of the first's connections is not in the way
	}
	if r.dir, err = os.MkdirTemp(parent, "s"); err != nil {
		return rep, err
	}
	defer os.RemoveAll(r.dir)
	if err := os.Chmod(r.dir, 0o777); err != nil { // a script may change its user
		return rep, err
	}
	if err := os.Mkdir(filepath.Join(r.dir, "d"), 0o755); err != nil {
		return rep, err
	}
	if err := os.Symlink("d", filepath.Join(r.dir, "l")); err != nil {
		return rep, err
	}
	if err := side.Begin(); err != nil {
		return rep, err
	}
	defer func() {
		if e := side.Finish(); err == nil {
			err = e
		}
	}()
	r.targets = targets(p)
	err = r.perform(p, &rep)
	return rep, err
}

func (r *run) perform(p Pair, rep *Report) (err error) {
	// What is left of its connections would be in the way of the second one.
	if rep.First, err = r.withoutWaits(func() (string, error) { return r.generation(1, p.First, "") }); err != nil {
		return err
	}
	if rep.Alone, err = r.probes(1); err != nil {
		return err
	}
	if rep.Files, err = r.live[1].Do("0 ls"); err != nil {
		return err
	}
	if r.side.Bare() {
		return r.after(p, rep)
	}
	if rep.Second, err = r.generation(2, p.Second, ""); err != nil {
		return err
	}
	if err = r.beside(rep); err != nil {
		return err
	}
	return r.gone(rep)
}

// after is the second generation bare: after the first has ended.
func (r *run) after(p Pair, rep *Report) error {
	held, err := r.live[1].Do("0 held")
	if err != nil {
		return err
	}
	if err := r.end(1); err != nil {
		return err
	}
	ghost, err := r.ghost(p.First)
	if err != nil {
		return err
	}
	rep.Second, err = r.generation(2, p.Second, held)
	if err = errors.Join(err, ghost.End()); err != nil {
		return err
	}
	return r.gone(rep)
}

// gone is when the first has ended.
func (r *run) gone(rep *Report) (err error) {
	if rep.Gone, err = r.probes(2); err != nil {
		return err
	}
	if err = r.end(2); err != nil {
		return err
	}
	rep.Left, err = r.left()
	return err
}

// beside is what only a handoff has: both generations run.
func (r *run) beside(rep *Report) (err error) {
	if rep.Beside, err = r.probes(1); err != nil {
		return err
	}
	if err = r.side.Serve(2); err != nil {
		return err
	}
	if rep.Turned, err = r.probes(2); err != nil {
		return err
	}
	return r.end(1)
}

// generation starts a program, and has it perform its script.
func (r *run) generation(n int, s Script, held string) (string, error) {
	l, err := r.side.Start(n)
	if err != nil {
		return "", err
	}
	r.live[n] = l
	lines := append(Script{"dir " + r.dir, fmt.Sprint("base ", r.base[n]), "held " + held}, s...)
	said, err := l.Do(append(lines, "0 look")...)
	if err != nil {
		return "", fmt.Errorf("generation %d: %w", n, err)
	}
	if n == 1 || r.side.Bare() {
		err = r.side.Serve(n)
	}
	return said, err
}

// ghost is what the first generation has that no contract holds: a second one sees it, as
// that of another program. It is made in a folder of its own; where its connections end,
// no address stays in use.
func (r *run) ghost(s Script) (*Leader, error) {
	dir, err := os.MkdirTemp(filepath.Dir(r.dir), "g")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o777), os.Mkdir(filepath.Join(dir, "d"), 0o755), os.Symlink("d", filepath.Join(dir, "l"))); err != nil {
		return nil, err
	}
	l, err := r.side.Start(1)
	if err != nil {
		return nil, err
	}
	_, err = r.withoutWaits(func() (string, error) {
		lines := append(Script{"dir " + dir, fmt.Sprint("base ", r.base[2]), "held "}, s...)
		return l.Do(append(lines, "0 ghost")...)
	})
	return l, err
}

// withoutWaits has nothing left of connections that end meanwhile (TIME_WAIT).
func (r *run) withoutWaits(do func() (string, error)) (said string, err error) {
	if _, err = r.side.Prober().Do("0 waits 0"); err == nil {
		said, err = do()
	}
	if err == nil {
		_, err = r.side.Prober().Do("0 waits 65536")
	}
	return said, err
}

func (r *run) end(n int) error {
	l := r.live[n]
	r.live[n] = nil
	return r.side.End(n, l)
}

func (r *run) left() (string, error) {
	var b strings.Builder
	for _, d := range []string{".", "d"} {
		files, err := os.ReadDir(filepath.Join(r.dir, d))
		if err != nil {
			return "", err
		}
		for _, f := range files {
			fmt.Fprintf(&b, "left %s/%s = %v\n", d, f.Name(), f.Type())
		}
	}
	return b.String(), nil
}

// targets are the addresses to which connections are tried.
func targets(p Pair) (list []target) {
	add := func(kind, addr string) {
		if t := (target{kind, addr, kind + " " + addr}); !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	udp := false
	for _, s := range slices.Concat(p.First, p.Second) {
		udp = udp || strings.Contains(s, " socket 2 2 ") || strings.Contains(s, " socket 2 524290 ") || strings.Contains(s, " socket 10 2 ")
	}
	for _, s := range slices.Concat(p.First, p.Second) {
		f := strings.Fields(s)
		if f[1] == "rename" {
			add("stream", f[3])
		}
		if f[1] != "bind" {
			continue
		}
		switch a := f[3]; a[0] {
		case '4', '6':
			port := a[strings.LastIndex(a, "/")+1:]
			if port == "0" {
				continue
			}
			for _, host := range []string{"4/127.0.0.1/", "4/127.0.0.2/", "6/::1/"} {
				add("tcp", host+port)
				if udp {
					add("udp", host+port)
				}
			}
		case 'u', 'U', '@':
			add("stream", a)
		}
	}
	return list
}

// probes tries to connect to all targets, as they are for a generation's script, and to
// the ports that the kernel chose.
func (r *run) probes(n int) (string, error) {
	r.serving = n
	var b strings.Builder
	list := slices.Clone(r.targets)
	for g, l := range r.live {
		if l == nil {
			continue
		}
		for i, p := range l.Ports[:min(4, len(l.Ports))] {
			list = append(list, target{"tcp", fmt.Sprint("4/127.0.0.1/", p), fmt.Sprintf("tcp e%d of generation %d", i, g)})
		}
	}
	if _, err := r.side.Prober().Do("dir "+r.dir, fmt.Sprint("base ", r.base[n])); err != nil {
		return "", err
	}
	for _, t := range list {
		who, err := r.probe(t)
		if err != nil {
			return "", fmt.Errorf("%s: %w", t.label, err)
		}
		fmt.Fprintf(&b, "%s = %s\n", t.label, who)
	}
	return b.String(), nil
}

// asked are the generations in the order in which they are asked: who serves is first. At a
// unix path all share one queue, and whoever accepts gets the connection.
func (r *run) asked() (list []int) {
	for _, g := range [][]int{{1, 2}, {2, 1}}[r.serving-1] {
		if r.live[g] != nil {
			list = append(list, g)
		}
	}
	return list
}

// probe connects, and asks everybody who has got it until somebody has.
func (r *run) probe(t target) (string, error) {
	prober := r.side.Prober()
	defer prober.Do("0 unprobe")
	r.token++
	kind, addr := t.kind, t.addr
	said, err := prober.Do(fmt.Sprintf("0 probe %s %s %d", kind, addr, r.token))
	if err == nil && said == "EPROTOTYPE" {
		kind = "seq"
		if said, err = prober.Do(fmt.Sprintf("0 probe seq %s %d", addr, r.token)); err == nil && said == "EPROTOTYPE" {
			kind = "dgram"
			said, err = prober.Do(fmt.Sprintf("0 probe dgram %s %d", addr, r.token))
		}
	}
	how, who, ok := strings.Cut(said, " ")
	if err != nil || !ok {
		return said, err
	}
	if _, err := strconv.Atoi(who); err != nil {
		return "", fmt.Errorf("the prober says %q", said)
	}
	take := "tcp"
	if how == "sent" {
		take = "udp"
	}
	for end, n := time.Now().Add(patience), 0; ; n++ {
		for _, g := range r.asked() {
			l := r.live[g]
			if said, err := l.Do("0 drop", fmt.Sprintf("0 take %s %s", take, who)); err != nil || said != "" {
				return fmt.Sprintf("%s taken %s, generation %d", kind, said, g), err
			}
		}
		if said, err := prober.Do("0 refused"); err != nil || said != "" {
			return said, err
		}
		if n > 20 && time.Now().After(end) {
			return "accepted by nobody", nil
		}
	}
}
