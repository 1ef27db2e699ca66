package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ContractOf returns how the workers of a command get their sockets: node, bind
// or activation.
func (r *Run) ContractOf(command []string) string {
	switch {
	case r.Contract != "auto":
		return r.Contract
	case isNode(command[0]):
		return "node"
	}
	return "bind"
}

// addresses is one value of --hold or --no-hold.
type addresses struct {
	addr     netip.Addr // zero: any
	from, to uint16
}

// parseAddresses reads 8000, 8000-8010, 127.0.0.1:8000 or [::1]:8000-8010.
func parseAddresses(s string) (a addresses, err error) {
	ports := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		ports = s[i+1:]
		if host := strings.Trim(s[:i], "[]"); host != "" {
			if a.addr, err = netip.ParseAddr(host); err != nil {
				return a, err
			}
		}
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	f, err1 := strconv.ParseUint(from, 10, 16)
	t, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || f > t {
		return a, fmt.Errorf("%q is not a port or a range of ports", ports)
	}
	a.from, a.to = uint16(f), uint16(t)
	return a, nil
}

func (a addresses) has(b netip.AddrPort) bool {
	return (!a.addr.IsValid() || a.addr.Unmap() == b.Addr().Unmap()) && a.from <= b.Port() && b.Port() <= a.to
}

func anyOf(list []addresses, b netip.AddrPort) bool {
	return slices.ContainsFunc(list, func(a addresses) bool { return a.has(b) })
}

// parseAddressList reads the values of a flag.
func parseAddressList(flag string, values []string) (list []addresses, err error) {
	for _, v := range values {
		a, err := parseAddresses(v)
		if err != nil {
			return nil, fmt.Errorf("invalid %s %q: want 8000, 8000-8010, 127.0.0.1:8000 or [::1]:8000", flag, v)
		}
		list = append(list, a)
	}
	return list, nil
}

// Allows returns which privileged addresses workers of another user may listen on.
func (r *Run) Allows() (func(netip.AddrPort) bool, error) {
	list, err := parseAddressList("--allow", r.Allow)
	if err != nil {
		return nil, err
	}
	return func(b netip.AddrPort) bool { return anyOf(list, b) }, nil
}

// MayDrops returns which addresses a reload may end, by their port or their name: TCP and
// UDP as for --hold, and paths.
func (r *Run) MayDrops() (func(at netip.AddrPort, name string) bool, error) {
	return addressOrPath("--may-drop", r.MayDrop)
}

// addressOrPath reads a list of addresses and paths.
func addressOrPath(flag string, all []string) (func(at netip.AddrPort, name string) bool, error) {
	var names, ports []string
	for _, v := range all {
		if path := strings.TrimPrefix(v, "unix:"); strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@") {
			names = append(names, path)
		} else {
			ports = append(ports, v)
		}
	}
	list, err := parseAddressList(flag, ports)
	if err != nil {
		return nil, fmt.Errorf("%w, or a path", err)
	}
	return func(at netip.AddrPort, name string) bool {
		return slices.Contains(names, name) || at.IsValid() && anyOf(list, at)
	}, nil
}

// Holds returns which addresses are held. Port 0 means those that the kernel chooses.
func (r *Run) Holds() (func(netip.AddrPort) bool, error) {
	only, err := parseAddressList("--hold", r.HoldOnly)
	if err != nil {
		return nil, err
	}
	not, err := parseAddressList("--no-hold", r.NoHold)
	if err != nil {
		return nil, err
	}
	chosen := slices.ContainsFunc(only, func(a addresses) bool { return a.from == 0 })
	only = slices.DeleteFunc(only, func(a addresses) bool { return a.to == 0 })
	return func(b netip.AddrPort) bool {
		if b.Port() == 0 {
			return chosen
		}
		return !anyOf(not, b) && (len(only) == 0 || anyOf(only, b))
	}, nil
}
