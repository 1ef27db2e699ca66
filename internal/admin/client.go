package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"handoff/internal/api"
	"handoff/internal/printable"
)

// Errors of a client, which have exit codes of their own.
var (
	ErrNotRunning = errors.New("handoff is not running")
	ErrWhich      = errors.New("several are running")
	// ErrEnded is that the answer did not come to its end.
	ErrEnded = errors.New("handoff has ended")
)

// Client speaks to one master.
type Client struct {
	Name string
	UID  int // whose process has answered to [Find]; -1: none has
	http *http.Client
}

// Within bounds how long an answer may take: who asks several services does not wait for
// one that hangs, or for another user's that only pretends to be one.
func (c *Client) Within(d time.Duration) *Client {
	c.http.Timeout = d
	return c
}

// Find returns the client of a name, or of the only master of this user.
func Find(name string) (*Client, error) {
	if name == "" {
		all := answering("*")
		for late := time.Now().Add(betweenMasters); len(all) == 0 && len(sockets("*")) > 0 && time.Now().Before(late); {
			time.Sleep(20 * time.Millisecond)
			all = answering("*")
		}
		names := namesOf(slices.DeleteFunc(slices.Clone(all), func(s controlSocket) bool { return s.embedded }))
		if len(names) == 0 || len(names) > 1 { // one that is part of another program is meant only by its name, or alone
			names = namesOf(all)
		}
		switch len(names) {
		case 0:
			return nil, fmt.Errorf("%w (no control socket in %s responds)", ErrNotRunning, strings.Join(places(os.Getenv, os.Geteuid()), ", "))
		case 1:
			name = names[0]
		default:
			return nil, fmt.Errorf("%w; choose one: %s", ErrWhich, strings.Join(names, ", "))
		}
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	answers, uid := answering(name), -1 // the first is spoken to for as long as this client is used
	if len(answers) > 0 {
		uid = answers[0].uid
	}
	return &Client{Name: name, UID: uid, http: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if len(answers) == 0 { // not yet, or between two masters
				return dialFirst(ctx, sockets(name))
			}
			return answers[0].dial(ctx)
		}}}}, nil
}

// dialFirst connects to the first socket that answers. The error is the one of the best
// place.
func dialFirst(ctx context.Context, all []controlSocket) (net.Conn, error) {
	if len(all) == 0 {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ENOENT}
	}
	var first error
	for _, s := range all {
		c, err := s.dial(ctx)
		if err == nil {
			return c, nil
		}
		first = cmp.Or(first, err)
	}
	return nil, first
}

// betweenMasters is how long a socket may be without a master.
const betweenMasters = time.Second

// Get asks for a path of the API and decodes the answer into v.
func (c *Client) Get(path string, v any) error { return c.ask(http.MethodGet, path, v) }

// Post is Get for what changes something.
func (c *Client) Post(path string, v any) error { return c.ask(http.MethodPost, path, v) }

// Status asks for the state of the service.
func (c *Client) Status() (s api.Status, err error) {
	err = c.Get(api.StatusPath, &s)
	return s, err
}

// Reload begins one, and returns the generation that it starts.
func (c *Client) Reload() (generation int, err error) {
	var done api.Reloading
	err = c.Post(api.ReloadPath, &done)
	return done.Generation, err
}

// Upgrade replaces handoff by the binary that is on disk, and returns when that is done:
// when the next master answers, and is of that binary.
func (c *Client) Upgrade() error {
	before, err := c.Status()
	if err != nil {
		return err
	}
	if err := c.Post(api.UpgradePath, &api.Upgraded{}); err != nil {
		return err
	}
	after, err := c.Status()
	for late := time.Now().Add(upgradeTimeout); err != nil && !errors.Is(err, syscall.ENOENT) && time.Now().Before(late); after, err = c.Status() {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("the new binary has not taken over: %w", err)
	}
	if reason, failed := strings.CutPrefix(after.LastError, "upgrade: "); failed && after.Upgrades <= before.Upgrades {
		return fmt.Errorf("%s: %w", c.Name, api.Error{Code: api.CodeUpgradeFailed, Message: reason})
	}
	return nil
}

// upgradeTimeout is how long it takes until the next master answers, if the new binary
// does not take over: the keeper waits for it before it uses the previous one again.
const upgradeTimeout = 40 * time.Second

// Scale sets the number of workers ("8"), or changes it ("+1", "-1"), and returns it.
func (c *Client) Scale(to string) (workers int, err error) {
	query := "?workers="
	if to != "" && (to[0] == '+' || to[0] == '-') {
		query = "?by="
	}
	var done api.Scaled
	err = c.Post(api.ScalePath+query+url.QueryEscape(to), &done)
	return done.Workers, err
}

// Stop begins to stop the service: with drain, or now.
func (c *Client) Stop(now bool) error {
	path := api.StopPath
	if now {
		path += "?now=1"
	}
	return c.Post(path, &api.Stopping{})
}

// Restart replaces the worker of a slot, and returns the number of the old one.
func (c *Client) Restart(slot int) (worker int, err error) {
	var done api.Restarting
	err = c.Post(api.RestartPath(slot), &done)
	return done.Worker, err
}

// Stream calls f for each line of an answer, until its end. That a master ends in
// the middle is no error.
func (c *Client) Stream(path string, f func(line []byte)) error {
	var resp *http.Response
	endless := http.Client{Transport: c.http.Transport}
	err := c.between(func() (err error) {
		resp, err = endless.Get("http://handoff" + path)
		return err
	})
	if err != nil {
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return c.refused(resp.Status, body)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f(lines.Bytes())
	}
	return nil
}

// between calls f again while there is a socket, and nobody behind it: between two
// masters, for a moment.
func (c *Client) between(f func() error) error {
	err := f()
	for late := time.Now().Add(betweenMasters); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(late); {
		time.Sleep(20 * time.Millisecond)
		err = f()
	}
	return err
}

// unanswered is the error of a request without an answer.
func (c *Client) unanswered(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w with the name %q (%w)", ErrNotRunning, c.Name, op.Err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("cannot query %s: %w", c.Name, ErrEnded)
	}
	return fmt.Errorf("cannot query %s: %w", c.Name, err)
}

// refused is the error of an answer that is not 200: an [api.Error].
func (c *Client) refused(status string, body []byte) error {
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Message == "" {
		e.Message = status
	}
	e.Message = printable.Text(e.Message)
	return fmt.Errorf("%s: %w", c.Name, e)
}

func (c *Client) ask(method, path string, v any) error {
	req, err := http.NewRequest(method, "http://handoff"+path, nil)
	if err != nil {
		return err
	}
	var resp *http.Response
	if err = c.between(func() (err error) {
		resp, err = c.http.Do(req)
		return err
	}); err != nil {
		return c.unanswered(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("cannot query %s: %w", c.Name, err)
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("cannot query %s: %w", c.Name, ErrEnded) // this master; the next one may answer
	}
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp.Status, body)
	}
	return json.Unmarshal(body, v)
}
