package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pinner replaces, in a command line and an environment, the paths that go through a
// symlink by what they lead to now: current/app.py is of the release that was live when
// the generation began, whatever becomes of the link. The last name of a path stays
// unless it leads to a folder, or to code: programs find themselves by it (a Python venv,
// a multi-call binary), and certificates are renewed behind it.
type pinner struct {
	dir   string   // that relative paths start from, resolved
	links []string // that were met on the way, by the paths that they were named by
}

// system are folders whose links belong to the system: nobody deploys by them, and
// what /proc/self leads to is another thing for each process.
func system() []string {
	return []string{"/proc", "/dev", "/sys", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/var/run", "/var/lock"}
}

// code are the endings of files that a runtime is told to run.
func code() []string {
	return []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".py", ".pyz", ".rb", ".ru", ".php", ".phar", ".pl", ".lua", ".exs", ".jar", ".war", ".dll"}
}

// kubernetes is the link by which a volume of Kubernetes is switched. What it led to is
// removed then: a path through it cannot be pinned.
const kubernetes = "..data"

// path pins one path; what goes through no link is returned as it is. A relative one
// has a slash, else it may be any word. follow has a link to code followed, too.
func (p *pinner) path(name string, follow bool) string {
	if !strings.Contains(name, "/") || strings.HasPrefix(name, "//") {
		return name
	}
	full := name // not cleaned: x/.. is not nothing where x is a link
	if !filepath.IsAbs(name) {
		full = p.dir + "/" + name
	}
	met := linksOf(full)
	if len(met) == 0 || slices.ContainsFunc(system(), func(s string) bool { return strings.HasPrefix(full+"/", s+"/") }) || slices.ContainsFunc(met, switchedAway) {
		return name
	}
	real, ok := p.resolve(full, follow)
	if !ok || real == filepath.Clean(full) && !strings.Contains(full+"/", "/../") {
		return name
	}
	p.links = append(p.links, met...)
	if strings.HasSuffix(name, "/") {
		real += "/"
	}
	return real
}

// resolve follows the links of a path, as far as the path is there.
func (p *pinner) resolve(full string, follow bool) (real string, ok bool) {
	full = strings.TrimRight(full, "/")
	info, err := os.Stat(full)
	if err == nil && (info.IsDir() || follow && slices.Contains(code(), filepath.Ext(full))) {
		real, err = filepath.EvalSymlinks(full)
		return real, err == nil
	}
	for at := strings.LastIndexByte(full, '/'); at > 0; at = strings.LastIndexByte(full[:at], '/') {
		if real, err = filepath.EvalSymlinks(full[:at]); err == nil {
			rest := full[at:]
			return real + rest, !strings.Contains(rest+"/", "/../")
		}
	}
	return "", false
}

// linksOf are the symlinks among the folders of a path, and itself.
func linksOf(full string) (links []string) {
	for at := 1; at <= len(full); at++ {
		if at < len(full) && full[at] != '/' || full[at-1] == '/' {
			continue
		}
		if info, err := os.Lstat(full[:at]); err != nil {
			break
		} else if info.Mode()&os.ModeSymlink != 0 {
			links = append(links, full[:at])
		}
	}
	return links
}

// switchedAway reports whether a link is one of Kubernetes', or leads through one.
func switchedAway(link string) bool {
	to, _ := os.Readlink(link)
	return filepath.Base(link) == kubernetes || slices.Contains(strings.Split(to, "/"), kubernetes)
}

// arg pins an argument: a path, a list of them, or an option with one (--flag=/path).
func (p *pinner) arg(a string) string {
	if len(a) > 3 && a[0] == '-' && a[2] == '/' { // -I/path
		return a[:2] + p.path(a[2:], true)
	}
	option, value, ok := strings.Cut(a, "=")
	if !ok || strings.Contains(option, "/") {
		return p.list(a)
	}
	return option + "=" + p.list(value)
}

// list pins a path, or the absolute ones of a list like PATH's.
func (p *pinner) list(s string) string {
	if !strings.Contains(s, ":") {
		return p.path(s, true)
	}
	items := strings.Split(s, ":")
	for i, item := range items {
		if filepath.IsAbs(item) {
			items[i] = p.path(item, true)
		}
	}
	return strings.Join(items, ":")
}

// variable pins an environment variable: only what goes through a link of the command's
// own, since most of an environment is not about it.
func (p *pinner) variable(kv string) string {
	name, value, _ := strings.Cut(kv, "=")
	if name == "HOME" || !slices.ContainsFunc(strings.Split(value, ":"), func(item string) bool {
		return slices.ContainsFunc(p.links, func(link string) bool { return strings.HasPrefix(item+"/", link+"/") })
	}) {
		return kv
	}
	return name + "=" + p.list(value)
}

// Unpinned says what a link in a text means, for people.
func Unpinned(link string) string {
	return "The command contains the symlink " + link + " in a text that handoff cannot pin: after a switch of the link a worker that crashes restarts with the new code, before any reload. " +
		"Use --cwd with the link and a path relative to the working directory"
}

// text finds the first link that a text goes through which is more than a path: what is
// in a shell's command line is the shell's to read. "": there is none.
func (p *pinner) text(s string) string {
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n'\"`;|&<>()$=:,{}", r) }) {
		other := pinner{dir: p.dir}
		if other.path(word, true) != word {
			return other.links[0]
		}
	}
	return ""
}
