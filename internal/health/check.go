// Package health asks one worker whether it is well: over connections that it is given, or by
// a command. What a worker answers is bounded, and made fit for a terminal.
package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"handoff/internal/printable"
)

// Kind is what is asked.
type Kind string

// The kinds.
const (
	HTTP  Kind = "http"
	HTTPS Kind = "https" // the certificate is not verified: nobody is in between
	TCP   Kind = "tcp"   // it accepts a connection
	GRPC  Kind = "grpc"  // grpc.health.v1, without TLS
	Exec  Kind = "exec"
)

// Check is how workers are asked.
type Check struct {
	Kind    Kind
	Target  string // path, gRPC service, or command
	Host    string // of HTTP; "": localhost
	Headers []string
	Status  []Range // that are well; none: 200 to 399
	Body    string  // that the answer must contain
	// Command runs a command of the shell, with these variables; the error is how it ended.
	Command func(ctx context.Context, command string, about map[string]any) error
}

// Range is a range of numbers.
type Range struct{ From, To int }

// Dial opens a connection to the worker.
type Dial func(ctx context.Context) (net.Conn, error)

// Parse reads what is to be asked: /healthz, http:/healthz, https:/healthz, tcp, grpc,
// grpc:SERVICE, exec:COMMAND.
func Parse(text string) (c Check, err error) {
	kind, target, _ := strings.Cut(text, ":")
	switch c = (Check{Kind: Kind(kind), Target: target}); {
	case strings.HasPrefix(text, "/"):
		c = Check{Kind: HTTP, Target: text}
	case (c.Kind == HTTP || c.Kind == HTTPS) && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//"):
	case c.Kind == TCP && text == "tcp":
	case c.Kind == GRPC:
	case c.Kind == Exec && strings.TrimSpace(target) != "":
	default:
		return c, fmt.Errorf("want a path like /healthz, https:/healthz, tcp, grpc, grpc:SERVICE or exec:COMMAND")
	}
	if c.Kind != Exec && strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return c, fmt.Errorf("a space or control character in %q", text)
	}
	return c, nil
}

// ParseStatus reads the statuses that are well: 200, 200-299.
func ParseStatus(list []string) (all []Range, err error) {
	for _, text := range list {
		low, high, ranged := strings.Cut(text, "-")
		from, err := strconv.Atoi(low)
		to := from
		if err == nil && ranged {
			to, err = strconv.Atoi(high)
		}
		if err != nil || from < 100 || to > 599 || from > to {
			return nil, fmt.Errorf("invalid status %q: want 200, or 200-299", text)
		}
		all = append(all, Range{from, to})
	}
	return all, nil
}

// ParseHeader checks a header: "Name: value".
func ParseHeader(text string) error {
	name, value, ok := strings.Cut(text, ":")
	if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("invalid header %q: want NAME: VALUE", text)
	}
	return nil
}

// Run asks once, until ctx ends. about is what a command finds in its environment. The error
// says what is wrong with the worker.
func (c *Check) Run(ctx context.Context, dial Dial, about map[string]any) error {
	switch c.Kind {
	case Exec:
		return c.exec(ctx, dial, about)
	case TCP:
		conn, err := dial(ctx)
		if err != nil {
			return c.failed(ctx, err)
		}
		conn.Close()
		return nil
	}
	conn, err := dial(ctx)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if c.Kind == GRPC {
		err = c.grpc(conn)
	} else {
		err = c.http(ctx, conn)
	}
	return c.failed(ctx, err)
}

// String is the question, in words.
func (c *Check) String() string {
	switch c.Kind {
	case HTTP, HTTPS:
		return "GET " + c.Target
	case TCP:
		return "connect"
	case GRPC:
		return strings.TrimSpace("grpc.health.v1 " + c.Target)
	}
	return c.Target
}

// Skipped means that the worker cannot be asked alone, so that nothing is known of it.
type Skipped struct{ Err error }

func (s Skipped) Error() string { return s.Err.Error() }

// failed is an error with the question in front.
func (c *Check) failed(ctx context.Context, err error) error {
	var skipped Skipped
	if err == nil || errors.As(err, &skipped) {
		return err
	}
	text := err.Error()
	var op *net.OpError
	switch {
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		text = "no answer in time"
		if by, ok := ctx.Deadline(); ok && ctx.Value(beganKey{}) != nil {
			text = fmt.Sprintf("no answer within %v", by.Sub(ctx.Value(beganKey{}).(time.Time)).Round(time.Millisecond))
		}
	case errors.As(err, &op):
		text = op.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "it closed the connection without an answer"
	}
	return fmt.Errorf("%s: %s", c, printable.Text(text))
}

type beganKey struct{}

// Within limits a check, and has errors say how long it was waited for.
func Within(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(parent, beganKey{}, time.Now()), d)
}

// Limits of an answer.
const (
	maxHead = 64 << 10
	maxBody = 64 << 10
	maxSaid = 100 // bytes of it in an error
)

func (c *Check) http(ctx context.Context, conn net.Conn) error {
	host := c.Host
	if host == "" {
		host = "localhost"
	}
	if c.Kind == HTTPS {
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: host})
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	}
	head := "GET " + c.Target + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: handoff-health\r\nAccept: */*\r\nConnection: close\r\n"
	for _, h := range c.Headers {
		head += strings.TrimSpace(h) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHead+maxBody)), &http.Request{Method: http.MethodGet})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if !c.well(r.StatusCode) {
		return errors.New(strconv.Itoa(r.StatusCode) + said(body))
	}
	if c.Body != "" && !strings.Contains(string(body), c.Body) {
		if err != nil {
			return err
		}
		return fmt.Errorf("%d without %q in its body%s", r.StatusCode, c.Body, said(body))
	}
	return nil
}

func (c *Check) well(status int) bool {
	if len(c.Status) == 0 {
		return status >= 200 && status < 400
	}
	return slices.ContainsFunc(c.Status, func(r Range) bool { return r.From <= status && status <= r.To })
}

// said is the beginning of an answer, in quotes.
func said(body []byte) string {
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" {
			if len(line) > maxSaid {
				line = line[:maxSaid] + "…"
			}
			return ", '" + printable.Text(strings.ToValidUTF8(line, "?")) + "'"
		}
	}
	return ""
}
