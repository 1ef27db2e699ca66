package prove

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"handoff/internal/load"
)

// testTimeout is for failure only.
const testTimeout = 40 * time.Second

// local is a subject in this process: a real server, whose actions are functions.
type local struct {
	addr       string
	generation atomic.Int64 // that answers, if above 0
	fresh      atomic.Int64 // requests of connections that have no other
	do         func(Action) (Outcome, error)
	settled    error
}

func serve(t *testing.T, status int) *local {
	s := &local{}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Close {
			s.fresh.Add(1)
		}
		if g := s.generation.Load(); g > 0 {
			rw.Header().Set("X-Generation", strconv.FormatInt(g, 10))
		}
		rw.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	s.addr = srv.Listener.Addr().String()
	return s
}

func (s *local) Addr() string                                    { return s.addr }
func (s *local) Inside(string) bool                              { return false }
func (s *local) Do(_ context.Context, a Action) (Outcome, error) { return s.do(a) }

// Settle waits until some requests of new connections have been answered in this part.
func (s *local) Settle(ctx context.Context) error {
	for want := s.fresh.Load() + 3; s.addr != "" && s.fresh.Load() < want; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return s.settled
}

func plan(times map[Action]int) Plan {
	return Plan{Duration: 30 * time.Millisecond, Rate: 400, Clients: 2, Timeout: testTimeout, Times: times}
}

func proof(t *testing.T, s Subject, p Plan) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	r, err := Run(ctx, s, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every action is done as often as wanted, in the order of Actions; nothing is lost.
func TestRun(t *testing.T) {
	s := serve(t, http.StatusNotFound)
	s.generation.Store(1)
	var done []Action
	s.do = func(a Action) (out Outcome, err error) {
		done = append(done, a)
		switch a {
		case Reload:
			out.Generation = int(s.generation.Add(1))
		case Scale:
			out.Note = "2 → 3 → 2 workers"
		case Upgrade:
			err = fmt.Errorf("%w: it has none", ErrCannot)
		}
		return out, err
	}
	p := plan(map[Action]int{KillMaster: 1, Reload: 3, Scale: 1, Upgrade: 2})
	var last Progress
	p.Progress = func(now Progress) { last = now } // in a goroutine that has ended when Run returns
	p.Duration = 150 * time.Millisecond
	r := proof(t, s, p)
	if want := []Action{Reload, Reload, Reload, Scale, Upgrade, KillMaster}; !slices.Equal(done, want) {
		t.Errorf("%v; want %v", done, want)
	}
	var names []string
	for _, part := range r.Parts {
		names = append(names, fmt.Sprintf("%s %d %s", part.Name, part.Times, part.Note))
		if part.Lost() > 0 || part.Error != "" || part.Name != string(Upgrade) && part.New.Requests == 0 {
			t.Errorf("%+v", part)
		}
	}
	if want := "undisturbed 0 |reload 3 |scale 1 2 → 3 → 2 workers|upgrade 0 skipped: not possible: it has none|kill -9 of the master 1 "; strings.Join(names, "|") != want {
		t.Errorf("%q; want %q", names, want)
	}
	if lost, _ := r.Lost(); lost != 0 || !r.Proven() || r.Requests() == 0 || !slices.Equal(r.Wants, []string{"GET /: 404"}) || len(r.Parts[1].Took) != 3 {
		t.Errorf("lost %d of %d, %v", lost, r.Requests(), r.Wants)
	}
	if last.Part == "" || last.Requests == 0 || last.Failed != 0 {
		t.Errorf("%+v", last)
	}
}

// New connections that an older generation answers after a reload are lost, whether the
// load sees it by a header, or the subject in another way.
func TestOldGeneration(t *testing.T) {
	s := serve(t, http.StatusOK)
	s.generation.Store(1)
	s.do = func(Action) (Outcome, error) {
		return Outcome{Generation: 2, Stale: []error{errors.New("generation 1 answered")}}, nil
	}
	r := proof(t, s, plan(map[Action]int{Reload: 1}))
	part := &r.Parts[1]
	if n := part.New.Failed[load.Order]; n < 2 || r.Proven() || r.Parts[0].Lost() > 0 {
		t.Errorf("%d, %s", n, r.Verdict())
	}
	if all := r.lost(); len(all) == 0 || all[0].kind.Class != load.Order || all[0].example == "" {
		t.Errorf("%+v", all)
	}
}

// What does not say its generation is not judged by it.
func TestNoGeneration(t *testing.T) {
	s := serve(t, http.StatusOK)
	s.do = func(Action) (Outcome, error) { return Outcome{Generation: 7}, nil }
	if r := proof(t, s, plan(map[Action]int{Reload: 1})); !r.Proven() {
		t.Error(r.Verdict())
	}
}

// An action that fails ends its part; that its effects do not end is an error, too.
func TestErrors(t *testing.T) {
	s := serve(t, http.StatusOK)
	done := 0
	s.do = func(a Action) (Outcome, error) {
		if done++; a == Reload {
			return Outcome{}, errors.New("generation 2 failed")
		}
		return Outcome{}, nil
	}
	s.settled = errors.New("2 workers are still draining")
	r := proof(t, s, plan(map[Action]int{Reload: 5, Scale: 1}))
	if got, want := r.Errors(), []string{"reload: generation 2 failed", "scale: 2 workers are still draining"}; !slices.Equal(got, want) || done != 2 || r.Proven() {
		t.Errorf("%q, %d; want %q", got, done, want)
	}
}

func TestEcho(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &local{do: func(Action) (Outcome, error) { return Outcome{}, nil }, addr: l.Addr().String()}
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); s.fresh.Add(1) {
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
	p := plan(map[Action]int{Reload: 1})
	p.Echo, p.Rate = true, -1 // as fast as possible
	if r := proof(t, s, p); !r.Proven() || r.Requests() == 0 || !r.Echo || len(r.Wants) != 0 {
		t.Error(r.Verdict())
	}
}

// A program that does not answer before anything is done to it proves nothing.
func TestNothingToProve(t *testing.T) {
	if _, err := Run(context.Background(), serve(t, http.StatusBadGateway), Plan{}); err == nil || !strings.Contains(err.Error(), "GET / with status 502 before any disturbance") {
		t.Error(err)
	}
	nobody := &local{addr: "127.0.0.1:1"}
	if _, err := Run(context.Background(), nobody, Plan{}); err == nil || !strings.HasPrefix(err.Error(), "no response from 127.0.0.1:1 to GET /") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := serve(t, http.StatusOK)
	s.do = func(Action) (Outcome, error) { cancel(); return Outcome{}, nil }
	if r, err := Run(ctx, s, plan(map[Action]int{Reload: 100, Scale: 1})); err != context.Canceled || len(r.Parts) != 2 {
		t.Errorf("%v", err)
	}
	if err := Answers(ctx, nobody.addr); err == nil || !strings.HasPrefix(err.Error(), "nothing listens on 127.0.0.1:1") {
		t.Error(err)
	}
}
