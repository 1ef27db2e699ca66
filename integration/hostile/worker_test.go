package hostile

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func workerRows() []row {
	return slices.Concat(socketRows(), connectionRows(), holderRows(), callRows())
}

// deed is a row of one attack by the first worker of the first generation, in a service
// under load, and of what is left of it after two reloads.
type deed struct {
	name, tries string
	attack      string // see attacker
	short       bool
	setups      []setup // of none: every
	before      func(*testing.T, *service)
	limit       string       // what others lose during the attack, and why; never after it
	flags       []string     // besides sticky balance, which tells whose requests are lost
	logs        []string     // events that an operator sees, the best first
	needs       func() error // what the kernel must have; else the row is skipped
}

func (d deed) row() row {
	return row{group: "worker", name: d.name, tries: d.tries, short: d.short, run: func(t *testing.T, r *report) {
		r.limit = d.limit
		if d.needs != nil {
			if err := d.needs(); err != nil {
				t.Skip(err)
			}
		}
		all := d.setups
		if all == nil {
			all = every
		}
		setups(t, all, func(t *testing.T, u setup) { d.run(t, r, u) })
	}}
}

func (d deed) run(t *testing.T, r *report, u setup) {
	s := start(t, options{setup: u, attack: d.attack, flags: append([]string{"--balance", "sticky"}, d.flags...)})
	if d.before != nil {
		d.before(t, s)
	}
	c := s.clients()
	c.more(t, 60)
	c.Begin("attack")
	s.mark("go")
	t.Logf("the attacker says %q", s.marked("done"))
	c.more(t, 200)
	s.reload() // the attacker is replaced
	s.outlived()
	c.Begin("after")
	c.more(t, 100)
	s.reload()
	c.more(t, 100)
	c.count(t, r, true)
	r.says(s.says(d.logs...))
	s.stop()
}

// md5Signatures reports why the kernel has no TCP_MD5SIG (RFC 2385; CONFIG_TCP_MD5SIG).
func md5Signatures() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	key := unix.TCPMD5Sig{Addr: unix.SockaddrStorage{Family: unix.AF_INET}, Keylen: 4}
	copy(key.Addr.Data[2:], []byte{127, 9, 9, 1})
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key); err != nil {
		return fmt.Errorf("TCP_MD5SIG: %w", err)
	}
	return nil
}

// set is an attack that sets an option of the listening socket.
func set(option string) string {
	return "say('done', may(sock.setsockopt, " + option + "))\n"
}
