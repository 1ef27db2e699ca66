package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"handoff/master/listeners"
)

// Listens reads the values of --listen. dir is what a relative path is relative
// to.
func (r *Run) Listens(dir string) ([]listeners.Listen, error) {
	var list []listeners.Listen
	for _, v := range r.Listen {
		l, err := parseListen(v, dir)
		if err != nil {
			return nil, fmt.Errorf("invalid --listen %q: %w", v, err)
		}
		list = append(list, l)
	}
	return list, nil
}

var errListen = errors.New("want [NAME=]8000, 127.0.0.1:8000, [::1]:8000, tcp4:8000, tcp6:8000 or unix:/path[,mode=660][,owner=USER[:GROUP]]")

func parseListen(v, dir string) (l listeners.Listen, err error) {
	l.UID, l.GID = -1, -1
	// A name has no colon or slash, so that the options of a path are no name.
	if name, rest, ok := strings.Cut(v, "="); ok && !strings.ContainsAny(name, ":/") {
		if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == ',' }) {
			return l, errors.New("a name has 1 to 255 printable characters, no colon, no slash and no comma (mode and owner are for unix:PATH)")
		}
		l.Name, v = name, rest
	}
	network, rest, _ := strings.Cut(v, ":")
	switch {
	case network == "tcp", network == "tcp4", network == "tcp6":
		err = tcp(&l, network, rest)
	case network == "unix":
		err = unixPath(&l, rest, dir)
	case strings.HasPrefix(v, "/") || strings.HasPrefix(v, "./"):
		err = unixPath(&l, v, dir)
	default:
		err = tcp(&l, "tcp", v)
	}
	return l, err
}

// tcp reads [HOST:]PORT. Without a host it is every address, of both families
// where the network does not say which.
func tcp(l *listeners.Listen, network, v string) error {
	host, port := "", v
	if i := strings.LastIndexByte(v, ':'); i >= 0 {
		host, port = v[:i], v[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return errListen
	}
	addr := netip.IPv6Unspecified()
	if network == "tcp4" {
		addr = netip.IPv4Unspecified()
	}
	if host != "" {
		if addr, err = netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
			return fmt.Errorf("%q is not an IP address", host)
		}
	}
	if network == "tcp4" && !addr.Is4() || network == "tcp6" && !addr.Is6() {
		return fmt.Errorf("%v is not a %s address", addr, network)
	}
	l.Addr, l.Only = netip.AddrPortFrom(addr, uint16(n)), network == "tcp6"
	l.Any = network == "tcp" && host == ""
	return nil
}

// unixPath reads PATH[,mode=M][,owner=U[:G]].
func unixPath(l *listeners.Listen, v, dir string) error {
	parts := strings.Split(v, ",")
	if l.Path = parts[0]; l.Path == "" {
		return errListen
	}
	if l.Path[0] == '@' {
		return errors.New("abstract sockets are not supported: anybody on the machine could take the name")
	}
	if !filepath.IsAbs(l.Path) {
		l.Path = filepath.Join(dir, l.Path)
	}
	if len(l.Path) > 107 { // sun_path, with its end
		return fmt.Errorf("the path is %d bytes long, the kernel allows 107", len(l.Path))
	}
	for _, option := range parts[1:] {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "mode":
			n, err := strconv.ParseUint(value, 8, 32)
			if err != nil || n > 0o777 || n == 0 {
				return fmt.Errorf("mode=%s: want an octal mode like 660", value)
			}
			l.Mode = fs.FileMode(n)
		case "owner":
			if err := owner(l, value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%q: want mode=660 or owner=USER[:GROUP] after a path", option)
		}
	}
	return nil
}

func owner(l *listeners.Listen, value string) error {
	name, group, _ := strings.Cut(value, ":")
	if name != "" {
		id, ok := number(name)
		if !ok {
			u, err := user.Lookup(name)
			if err != nil {
				return fmt.Errorf("unknown user %q", name)
			}
			id, _ = number(u.Uid)
		}
		l.UID = id
	}
	if group != "" {
		id, ok := number(group)
		if !ok {
			g, err := user.LookupGroup(group)
			if err != nil {
				return fmt.Errorf("unknown group %q", group)
			}
			id, _ = number(g.Gid)
		}
		l.GID = id
	}
	if l.UID < 0 && l.GID < 0 {
		return errListen
	}
	return nil
}

// number reads a numeric user or group id, which need not have a name.
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}
