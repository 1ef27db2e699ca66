package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kernel has the clock, what is to happen, processes, and listening sockets. Everything
// comes from one seed.
type kernel struct {
	r       *rand.Rand
	now     time.Time
	timers  []timer // a heap
	seq     int
	procs   []*proc // alive
	lastPID int
	socks   []*sock // that somebody has
	lastIno uint64
	program []*sock // where new connections go
	version int     // of the program on disk
	codes   []code  // by version
	trace   *[]string
}

type timer struct {
	at  time.Time
	seq int
	f   func()
}

func (t timer) before(o timer) bool {
	return cmp.Or(t.at.Compare(o.at), cmp.Compare(t.seq, o.seq)) < 0
}

// after has f called then.
func (k *kernel) after(d time.Duration, f func()) {
	k.seq++
	k.timers = append(k.timers, timer{k.now.Add(d), k.seq, f})
	for i := len(k.timers) - 1; i > 0; {
		up := (i - 1) / 2
		if !k.timers[i].before(k.timers[up]) {
			break
		}
		k.timers[i], k.timers[up] = k.timers[up], k.timers[i]
		i = up
	}
}

// upcoming moves the clock to the next timer and returns what happens; nil: nothing does.
func (k *kernel) upcoming() func() {
	if len(k.timers) == 0 {
		return nil
	}
	first, last := k.timers[0], len(k.timers)-1
	k.timers[0] = k.timers[last]
	k.timers[last] = timer{}
	k.timers = k.timers[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if k.timers[c].before(k.timers[least]) {
				least = c
			}
		}
		if least == i {
			break
		}
		k.timers[i], k.timers[least] = k.timers[least], k.timers[i]
		i = least
	}
	k.now = first.at
	return first.f
}

// chance is true once in n times.
func (k *kernel) chance(n int) bool { return k.r.IntN(n) == 0 }

// between is a random duration.
func (k *kernel) between(least, most time.Duration) time.Duration {
	return least + time.Duration(k.r.Int64N(int64(most-least)+1))
}

// note writes a line of the transcript.
func (k *kernel) note(format string, args ...any) {
	if k.trace != nil {
		*k.trace = append(*k.trace, fmt.Sprintf("%10.3fs  ", k.now.Sub(epoch).Seconds())+fmt.Sprintf(format, args...))
	}
}

var epoch = time.Unix(1_000_000_000, 0)

// code is how the programs of a version behave.
type code struct {
	missing   bool // the command cannot be resolved
	crashes   bool // in its start
	neverTold bool // it never listens
	stubborn  int  // 1: ignores the drain; 2: SIGTERM, too
	boots     time.Duration
	drains    time.Duration
}

// proc is a worker's process.
type proc struct {
	pid, id, slot, gen, version int

	code      code
	socks     []*sock // it has, and accepts from
	serving   bool    // it has said that it listens
	hung      bool
	aimed     bool // a master has steered to it
	told      bool // to go, by whatever
	termed    bool
	killed    bool
	dead      bool
	abandoned bool // its connections were given to others
	active    int  // connections that it has accepted
	mem       int64
}

func (p *proc) String() string {
	return fmt.Sprintf("worker %d (slot %d, gen %d)", p.id, p.slot, p.gen)
}

// sock is a listening socket of the address.
type sock struct {
	ino    uint64
	queue  int  // connections that nobody has accepted
	master bool // the master has a descriptor of it
	stored bool // the keeper, or the service manager
	closed bool
}

func (k *kernel) readers(s *sock) (all []*proc) {
	for _, p := range k.procs {
		if slices.Contains(p.socks, s) {
			all = append(all, p)
		}
	}
	return all
}

// reader is a process that accepts from a socket, nil if there is none.
func (k *kernel) reader(s *sock) *proc {
	for _, p := range k.procs {
		if !p.hung && slices.Contains(p.socks, s) {
			return p
		}
	}
	return nil
}

// held reports whether a process has a socket.
func (k *kernel) held(s *sock) bool {
	return slices.ContainsFunc(k.procs, func(p *proc) bool { return slices.Contains(p.socks, s) })
}

// steeredTo reports whether new connections come to a process, and to no other one in its
// place: a worker that hangs still has the socket that its replacement was given.
func (k *kernel) steeredTo(p *proc) bool {
	return slices.ContainsFunc(k.program, func(s *sock) bool {
		return slices.Contains(p.socks, s) && !slices.ContainsFunc(k.readers(s), func(o *proc) bool { return o != p && !o.hung })
	})
}

func (k *kernel) listen() *sock {
	k.lastIno++
	s := &sock{ino: k.lastIno, master: true}
	k.socks = append(k.socks, s)
	return s
}
