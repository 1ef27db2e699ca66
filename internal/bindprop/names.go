package bindprop

import (
	"path"
	"strings"
)

// namesOf are what scripts have done with the files of held unix sockets.
type namesOf struct {
	first, second bool // that script removes or renames one, so that a call is answered and not done
}

// file is the file that an address names, in the script's folder; "" for other addresses.
func file(addr string) string {
	if len(addr) < 2 || addr[0] != 'u' && addr[0] != 'U' {
		return ""
	}
	p := path.Clean(addr[2:])
	if rest, ok := strings.CutPrefix(p, "l/"); ok {
		return "d/" + rest
	}
	return p
}

// names follows both scripts, by what their calls returned bare. A second generation that
// removes the first one's file to bind the path itself is not meant: that looks as it does
// bare.
func names(bare Report) (n namesOf) {
	held, own := map[string]bool{}, map[string]bool{}
	for i, text := range []string{bare.First, bare.Second} {
		taints := &n.first
		if i == 1 {
			taints, own = &n.second, map[string]bool{}
		}
		lines := linesOf(text)
		for k, l := range lines {
			f := strings.Fields(l.label)
			if len(f) < 4 || f[0] == "look" {
				continue
			}
			switch f[2] {
			case "bind":
				if p := file(f[len(f)-1]); p != "" && l.value == "0" {
					held[p], own[p] = true, true
				}
			case "unlink":
				p := file(f[3])
				if held[p] && (own[p] || !bindsNext(lines[k+1:], p)) {
					*taints = true
				}
			case "rename":
				if len(f) > 4 && (held[file(f[3])] || held[file(f[4])]) {
					*taints = true
				}
			}
		}
	}
	return n
}

// bindsNext reports whether the next call about a file is a bind that succeeds.
func bindsNext(lines []line, p string) bool {
	for _, l := range lines {
		f := strings.Fields(l.label)
		if len(f) > 3 && f[0] != "look" && file(f[len(f)-1]) == p {
			return f[2] == "bind" && l.value == "0"
		}
	}
	return false
}

// about reports whether a difference is about unix sockets or their files.
func (d Difference) aboutNames() bool {
	if d.traced != nil {
		return d.traced.kind == "unix"
	}
	for _, f := range strings.Fields(d.Label + " " + d.Bare + " " + d.Handoff) {
		if file(f) != "" || strings.HasPrefix(f, "@/") {
			return true
		}
	}
	return d.Part == "files" || d.Part == "left"
}
