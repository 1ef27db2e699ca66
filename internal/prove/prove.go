// Package prove counts the requests that a program loses while it is disturbed. Strict
// load, on new and on kept connections at once, runs before, during and after each kind
// of disturbance.
package prove

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"handoff/internal/load"
)

// Action is a kind of disturbance.
type Action string

// The actions, in the order in which they are done. Those that may end a subject are
// last.
const (
	Reload     Action = "reload"
	Scale      Action = "scale"
	Upgrade    Action = "upgrade"
	Broken     Action = "broken deploy"
	KillWorker Action = "kill -9 of a worker"
	KillMaster Action = "kill -9 of the master"
)

// Actions has all actions in that order.
var Actions = [...]Action{Reload, Scale, Upgrade, Broken, KillWorker, KillMaster}

// Undisturbed is the name of the first part.
const Undisturbed = "undisturbed"

// Plan says what to do. Timeout, Rate and Clients have defaults.
type Plan struct {
	Duration time.Duration // of the undisturbed part, and the minimum of each other part
	Rate     float64       // requests a second, half of them on new connections; 0: 1000; below 0: as fast as possible
	Clients  int           // that keep their connections, and as many that do not if Rate is below 0; 0: 16
	Timeout  time.Duration // for one request; 0: 5 s
	Times    map[Action]int
	Requests []load.Request // none: GET /
	Echo     bool           // lines over TCP, not HTTP
	// Progress, if not nil, is called about ten times a second.
	Progress func(Progress)
}

// Progress describes a running proof.
type Progress struct {
	Part     string
	Done, Of int // actions
	Requests int64
	Failed   int64
}

// Outcome is the result of one action.
type Outcome struct {
	Note string // for a person: "2 → 3 → 2 workers"
	// Stale has an error for each connection that was made after a reload was reported as
	// complete, and was answered by an older generation.
	Stale []error
	// Generation serves from now on; 0: unknown.
	Generation int
}

// Subject is what is tested.
type Subject interface {
	// Addr is the address at which it answers.
	Addr() string
	// Do does one action and returns when it is complete. With ErrCannot the action is
	// skipped.
	Do(context.Context, Action) (Outcome, error)
	// Settle waits until the effects of the actions have ended: no old worker is left. It
	// returns an error if they do not end.
	Settle(context.Context) error
	// Inside reports whether a connection, identified by the client's address, was inside a
	// killed worker.
	Inside(local string) bool
}

// ErrCannot means that an action does not apply to a subject.
var ErrCannot = errors.New("not possible")

// Part has the measurements of one part of a proof.
type Part struct {
	Name  string
	Times int             // completed actions
	Took  []time.Duration // of each action
	Note  string
	Error string // why an action failed
	// The requests on new connections, and those on kept ones.
	New, Kept load.Result
	Elapsed   time.Duration
}

// Lost is the number of lost requests of both kinds.
func (p *Part) Lost() int64 { return p.New.Lost() + p.Kept.Lost() }

// Report is a whole proof.
type Report struct {
	Parts []Part
	Wants []string // the expected response to each request
	Echo  bool
	// AllowInside does not count the requests that were inside killed workers.
	AllowInside bool
	// Keep is the --keep-connections of a handoff; "": there is none, or it has no part in a
	// drain.
	Keep string
}

// Proven reports whether nothing was lost and every action succeeded.
func (r *Report) Proven() bool {
	lost, inside := r.Lost()
	if r.AllowInside {
		lost -= inside
	}
	return lost == 0 && len(r.Errors()) == 0
}

// Lost returns the number of requests lost in all parts, and how many of them were inside
// killed workers.
func (r *Report) Lost() (lost, inside int64) {
	for i := range r.Parts {
		lost += r.Parts[i].Lost()
		inside += r.Parts[i].New.Failed[load.Inside] + r.Parts[i].Kept.Failed[load.Inside]
	}
	return lost, inside
}

// Errors returns the errors of failed actions.
func (r *Report) Errors() (all []string) {
	for _, p := range r.Parts {
		if p.Error != "" {
			all = append(all, p.Name+": "+p.Error)
		}
	}
	return all
}

// Run carries out a plan. It returns an error if it could not begin or was cancelled.
func Run(ctx context.Context, s Subject, plan Plan) (*Report, error) {
	if plan.Timeout == 0 {
		plan.Timeout = 5 * time.Second
	}
	if plan.Clients == 0 {
		plan.Clients = 16
	}
	if plan.Rate == 0 {
		plan.Rate = 1000
	}
	r := &Report{Echo: plan.Echo}
	var err error
	numbered := false
	if !plan.Echo {
		if plan.Requests, r.Wants, numbered, err = ask(ctx, s.Addr(), plan); err != nil {
			return nil, err
		}
	}
	cfg := load.Config{Addr: s.Addr(), Timeout: plan.Timeout, Clients: plan.Clients, Requests: plan.Requests, Echo: plan.Echo, Rate: max(plan.Rate, 0) / 2, Inside: s.Inside, Part: Undisturbed}
	cfg.Mode = load.New
	news := load.Start(cfg)
	cfg.Mode = load.KeepAlive
	kept := load.Start(cfg)
	p := &run{plan: plan, subject: s, news: news, kept: kept, numbered: numbered, done: []Part{{Name: Undisturbed}}}
	p.report(Progress{Part: Undisturbed})
	stopProgress := p.show()
	wait(ctx, plan.Duration)
	for _, d := range Actions {
		if n := plan.Times[d]; n > 0 && ctx.Err() == nil {
			p.part(ctx, d, n)
		}
	}
	stopProgress()
	var both sync.WaitGroup
	for _, l := range []*load.Run{news, kept} {
		both.Go(func() { l.Stop() })
	}
	both.Wait()
	for i, part := range p.done {
		part.New, part.Kept = news.Parts()[i].Result(), kept.Parts()[i].Result()
		part.Elapsed = part.New.Elapsed
		r.Parts = append(r.Parts, part)
	}
	return r, ctx.Err()
}

type run struct {
	plan       Plan
	subject    Subject
	news, kept *load.Run
	numbered   bool // responses have a header X-Generation
	done       []Part

	mu       sync.Mutex // guards progress, for show
	progress Progress
}

func (p *run) begin(name string, of int) {
	p.news.Begin(name)
	p.kept.Begin(name)
	p.done = append(p.done, Part{Name: name})
	p.report(Progress{Part: name, Of: of})
}

func (p *run) report(now Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = now
}

// part does one action n times.
func (p *run) part(ctx context.Context, d Action, n int) {
	p.begin(string(d), n)
	part := &p.done[len(p.done)-1]
	began := time.Now()
	for i := range n {
		start := time.Now()
		out, err := p.subject.Do(ctx, d)
		if ctx.Err() != nil {
			return
		}
		if out.Note != "" {
			part.Note = out.Note
		}
		if errors.Is(err, ErrCannot) {
			part.Note = "skipped: " + err.Error()
			return
		}
		if err != nil {
			part.Error = err.Error()
			break
		}
		if p.numbered && out.Generation > 0 {
			p.news.Least(out.Generation)
			p.kept.Least(out.Generation)
		}
		part.Times++
		part.Took = append(part.Took, time.Since(start))
		for _, err := range out.Stale {
			p.news.Count(load.Failure{Class: load.Order, Stage: load.Whole, Err: err})
		}
		p.report(Progress{Part: string(d), Done: i + 1, Of: n})
		wait(ctx, time.Until(began.Add(p.plan.Duration*time.Duration(i+1)/time.Duration(n))))
	}
	if err := p.subject.Settle(ctx); err != nil && part.Error == "" && ctx.Err() == nil {
		part.Error = err.Error()
	}
}

// show calls Plan.Progress at intervals, until stop is called.
func (p *run) show() (stop func()) {
	if p.plan.Progress == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // ended by stop
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-end:
				return
			}
			p.mu.Lock()
			now := p.progress
			p.mu.Unlock()
			now.Requests, now.Failed = p.news.Requests()+p.kept.Requests(), p.news.Failures()+p.kept.Failures()
			p.plan.Progress(now)
		}
	}()
	return func() { close(end); <-ended }
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// ask sends each request once. The status of the response is expected from then on.
// numbered reports whether all responses are of the first generation (X-Generation).
func ask(ctx context.Context, addr string, plan Plan) (requests []load.Request, wants []string, numbered bool, err error) {
	numbered = true
	requests = plan.Requests
	if len(requests) == 0 {
		requests = []load.Request{{Method: http.MethodGet, Target: "/", Header: http.Header{"Host": {"localhost"}}}}
	}
	for i := range requests {
		r := &requests[i]
		status, header, err := r.Once(ctx, addr, plan.Timeout)
		if err != nil {
			return nil, nil, false, fmt.Errorf("no response from %s to %s %s: %w", addr, r.Method, r.Target, err)
		}
		if status >= http.StatusInternalServerError {
			return nil, nil, false, fmt.Errorf("%s responds to %s %s with status %d before any disturbance; use other requests (--request FILE)", addr, r.Method, r.Target, status)
		}
		r.Want = status
		numbered = numbered && header.Get("X-Generation") == "1"
		wants = append(wants, fmt.Sprintf("%s %s: %d", r.Method, r.Target, status))
	}
	return requests, wants, numbered, nil
}

// Answers waits until an address accepts connections.
func Answers(ctx context.Context, addr string) error {
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, err)
		}
	}
}

// short returns the first line of an error.
func short(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
