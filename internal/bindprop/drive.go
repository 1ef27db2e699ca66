package bindprop

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// timeout is for failure only.
const timeout = 30 * time.Second

// Control is the socket that runners and leaders connect to.
type Control struct {
	listener *net.UnixListener
	waiting  map[string]*conn // by what they have said
	leaders  int
}

type conn struct {
	*net.UnixConn
	r *bufio.Reader
}

func (c *conn) line() (string, error) {
	c.SetDeadline(time.Now().Add(timeout))
	l, err := c.r.ReadString('\n')
	return strings.TrimSuffix(l, "\n"), err
}

// Listen opens a control socket. One goroutine uses it.
func Listen(path string) (*Control, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &Control{listener: l, waiting: map[string]*conn{}}, nil
}

// Close closes it.
func (c *Control) Close() { c.listener.Close() }

func (c *Control) await(who string) (*conn, error) {
	for c.waiting[who] == nil {
		c.listener.SetDeadline(time.Now().Add(timeout))
		u, err := c.listener.AcceptUnix()
		if err != nil {
			return nil, fmt.Errorf("no %s: %w", who, err)
		}
		n := &conn{u, bufio.NewReaderSize(u, 1<<16)}
		l, err := n.line()
		if err != nil {
			return nil, err
		}
		c.waiting[l] = n
	}
	n := c.waiting[who]
	delete(c.waiting, who)
	return n, nil
}

// Runner is a process that forks a leader for each script.
type Runner struct {
	control *Control
	conn    *conn
}

// Runner waits for the runner of that name.
func (c *Control) Runner(name string) (*Runner, error) {
	n, err := c.await("runner " + name)
	if err != nil {
		return nil, err
	}
	return &Runner{c, n}, nil
}

func (r *Runner) ask(line string) (int, error) {
	if _, err := r.conn.Write([]byte(line + "\n")); err != nil {
		return 0, err
	}
	l, err := r.conn.line()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(l)
}

// Serve makes the runner itself listen.
func (r *Runner) Serve(host string, port int) error {
	n, err := r.ask(fmt.Sprint("serve ", host, " ", port))
	if err == nil && n != 0 {
		err = fmt.Errorf("cannot serve: errno %d", n)
	}
	return err
}

// Close ends the runner. Leaders stay.
func (r *Runner) Close() { r.conn.Close() }

// Leader performs scripts.
type Leader struct {
	runner *Runner
	conn   *conn
	PID    int
	Ports  []int // that the kernel chose
}

// Leader forks one.
func (r *Runner) Leader() (*Leader, error) {
	r.control.leaders++
	id := strconv.Itoa(r.control.leaders)
	pid, err := r.ask("fork " + id)
	if err != nil {
		return nil, err
	}
	n, err := r.control.await("leader " + id)
	if err != nil {
		return nil, err
	}
	return &Leader{runner: r, conn: n, PID: pid}, nil
}

// End kills a leader, with what it has forked, and waits for it.
func (l *Leader) End() error {
	_, err := l.runner.ask(fmt.Sprint("end ", l.PID))
	l.conn.Close()
	return err
}

// Do performs lines, and returns what they say.
func (l *Leader) Do(lines ...string) (string, error) {
	text := strings.Join(lines, "\n") + "\n"
	if _, err := fmt.Fprintf(l.conn, "%d\n%s", len(text), text); err != nil {
		return "", err
	}
	head, err := l.conn.line()
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(head)
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	for at := 0; at < n; {
		k, err := l.conn.r.Read(b[at:])
		if err != nil {
			return "", err
		}
		at += k
	}
	said, ports, _ := strings.Cut(string(b), "ports")
	l.Ports = nil
	for _, p := range strings.Fields(ports) {
		port, _ := strconv.Atoi(p)
		l.Ports = append(l.Ports, port)
	}
	return said, nil
}
