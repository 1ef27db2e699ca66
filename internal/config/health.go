package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"handoff/internal/health"
)

// Health is how workers are checked.
type Health struct {
	Check       string // what is asked; "": nothing
	Address     string
	Host        string
	Headers     []string
	Status      []string
	Body        string
	Interval    time.Duration
	Timeout     time.Duration
	Rise, Fall  int
	StartPeriod time.Duration
}

func healthDefaults() Health {
	return Health{Interval: 2 * time.Second, Timeout: 5 * time.Second, Rise: 1, Fall: 3, StartPeriod: 10 * time.Second}
}

func (h *Health) flags(fs *pflag.FlagSet) {
	fs.StringVar(&h.Check, "health", "", "put a worker into service only when it passes this `check`, asked of it alone, and go on checking: /healthz (HTTP GET: 2xx or 3xx), https:/healthz (not verified), tcp (it accepts), grpc or grpc:SERVICE (grpc.health.v1), exec:COMMAND (exit code 0)")
	fs.StringVar(&h.Address, "health-address", "", "with several addresses, check the worker at this `address`: 8000, 127.0.0.1:8000, /run/web.sock (default: the first one)")
	fs.StringVar(&h.Host, "health-host", "", "`name` that the check asks for, as Host or :authority (default: localhost)")
	fs.StringArrayVar(&h.Headers, "health-header", nil, "`'NAME: VALUE'` that the check sends (may be repeated)")
	fs.StringSliceVar(&h.Status, "health-status", nil, "`status` codes that pass: 200,204,300-399 (default: 200-399)")
	fs.StringVar(&h.Body, "health-body", "", "`text` that the answer must contain")
	duration(fs, &h.Interval, "health-interval", "time between two checks of a worker; one that starts is checked at least every 500ms")
	duration(fs, &h.Timeout, "health-timeout", "longest check")
	fs.IntVar(&h.Rise, "health-rise", h.Rise, "checks that a worker must pass in a row")
	fs.IntVar(&h.Fall, "health-fall", h.Fall, "checks that a serving worker must fail in a row until connections go to others and it is replaced")
	duration(fs, &h.StartPeriod, "health-start-period", "in which a new worker must pass, from its first check; else its start, and with it a reload, has failed")
}

// Question is what is asked; its kind is "" if nothing is.
func (h *Health) Question() (c health.Check, err error) {
	if h.Check == "" {
		return c, nil
	}
	if c, err = health.Parse(h.Check); err != nil {
		return c, fmt.Errorf("invalid --health %q: %w", h.Check, err)
	}
	c.Host, c.Headers, c.Body = h.Host, h.Headers, h.Body
	if strings.ContainsFunc(h.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return c, fmt.Errorf("invalid --health-host %q: a space or control character", h.Host)
	}
	for _, header := range h.Headers {
		if err := health.ParseHeader(header); err != nil {
			name, _, _ := strings.Cut(header, ":") // the value may be secret
			return c, fmt.Errorf("invalid --health-header %q: want 'NAME: VALUE'", name)
		}
	}
	if c.Status, err = health.ParseStatus(h.Status); err != nil {
		return c, fmt.Errorf("--health-status: %w", err)
	}
	return c, nil
}

// At returns which address is checked; nil: the first one.
func (h *Health) At() (func(at netip.AddrPort, name string) bool, error) {
	if h.Address == "" {
		return nil, nil
	}
	return addressOrPath("--health-address", []string{h.Address})
}

func (r *Run) checkHealth() error {
	h := &r.Health
	_, err := h.Question()
	if err == nil {
		_, err = h.At()
	}
	switch {
	case err != nil:
		return err
	case h.Check == "":
		return nil
	case h.Interval <= 0 || h.Timeout <= 0:
		return fmt.Errorf("--health-interval and --health-timeout must be greater than 0")
	case h.Rise < 1 || h.Fall < 1:
		return fmt.Errorf("--health-rise and --health-fall must be at least 1")
	case r.Balance == "shared" && !strings.HasPrefix(h.Check, "exec:"):
		return fmt.Errorf("--health cannot ask one worker with --balance shared, where all have one socket: use --balance even, or exec:COMMAND")
	}
	return nil
}
