package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Errors of a client, which have exit codes of their own.
var (
	ErrNotRunning = errors.New("handoff is not running")
	ErrWhich      = errors.New("several are running")
)

// Client speaks to one master.
type Client struct {
	Name string
	http *http.Client
}

// Find returns the client of a name, or of the only master of this user.
func Find(name string) (*Client, error) {
	if name == "" {
		names := Names()
		for patience := time.Now().Add(betweenMasters); len(names) == 0 && len(sockets("*")) > 0 && time.Now().Before(patience); {
			time.Sleep(20 * time.Millisecond)
			names = Names()
		}
		switch len(names) {
		case 0:
			return nil, fmt.Errorf("%w (no control socket in %s answers)", ErrNotRunning, Dir())
		case 1:
			name = names[0]
		default:
			return nil, fmt.Errorf("%w: say which one: %s", ErrWhich, strings.Join(names, ", "))
		}
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(Dir(), name+".sock")
	for _, p := range sockets(name) {
		if c, err := net.Dial("unix", p); err == nil {
			c.Close()
			path = p
			break
		}
	}
	return &Client{Name: name, http: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}}, nil
}

// betweenMasters is how long a socket may be without a master.
const betweenMasters = time.Second

// Get asks for a path of the API and decodes the answer into v.
func (c *Client) Get(path string, v any) error { return c.ask(http.MethodGet, path, v) }

// Post is Get for what changes something.
func (c *Client) Post(path string, v any) error { return c.ask(http.MethodPost, path, v) }

func (c *Client) ask(method, path string, v any) error {
	req, err := http.NewRequest(method, "http://handoff"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	// Between two masters there is a socket, and nobody behind it, for a moment.
	for patience := time.Now().Add(betweenMasters); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(patience); {
		time.Sleep(20 * time.Millisecond)
		resp, err = c.http.Do(req)
	}
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("%w by the name of %q (%w)", ErrNotRunning, c.Name, op.Err)
		}
		return fmt.Errorf("cannot ask %s: %w", c.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", c.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p Problem
		if json.Unmarshal(body, &p) != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return fmt.Errorf("%s says: %s", c.Name, p.Error)
	}
	return json.Unmarshal(body, v)
}
