package integration

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

// block is a fenced block of a page: ```lang word word…
type block struct {
	line  int
	lang  string
	attrs map[string]string
	text  string
}

// pages are the Markdown files that users read, by their paths below the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range []string{"docs", "README.md", "HACKING.md", "DESIGN.md", "sdk/node/README.md"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".vitepress") {
				return filepath.SkipDir
			}
			if strings.HasSuffix(path, ".md") {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				all[strings.TrimPrefix(path, "../")] = string(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func blocks(text string) (all []block) {
	var b *block
	for i, line := range strings.Split(text, "\n") {
		switch {
		case b == nil && strings.HasPrefix(line, "```"):
			words := strings.Fields(strings.TrimPrefix(line, "```"))
			b = &block{line: i + 1, attrs: map[string]string{}}
			for j, w := range words {
				k, v, _ := strings.Cut(w, "=")
				if j == 0 {
					b.lang = w
				} else {
					b.attrs[k] = v
				}
			}
		case b != nil && strings.HasPrefix(line, "```"):
			all = append(all, *b)
			b = nil
		case b != nil:
			b.text += line + "\n"
		}
	}
	return all
}

// has tells whether a block has an attribute.
func (b block) has(name string) bool { _, ok := b.attrs[name]; return ok }

// Every command of the docs is run, in the order of its page, or marked as not:
//
//	```js file=server.js   is written to that file
//	```sh serve            runs in the background until the page ends
//	```sh run              must end with 0; run exit=1: with 1
//	```sh norun            is not run: it needs what is not here, or root
//
// needs=NAME skips what needs a program that is not here.
func TestDocs(t *testing.T) {
	for path, text := range pages(t) {
		all := blocks(text)
		runs := false
		for _, b := range all {
			if b.lang != "sh" {
				continue
			}
			switch {
			case b.has("run"), b.has("serve"):
				runs = true
			case !b.has("norun"):
				t.Errorf("%s:%d: a block of commands that is neither run nor marked as not (run, serve, norun)", path, b.line)
			}
		}
		if runs {
			t.Run(path, func(t *testing.T) {
				if !strings.Contains(text, "handoff prove") { // which counts what is lost at 1000 requests/s
					t.Parallel()
				}
				runPage(t, path, all)
			})
		}
	}
}

func runPage(t *testing.T, path string, all []block) {
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "docs") // short: it has sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	bin := filepath.Join(run, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"handoff", "rackadmin", "rackman"} {
		if err := os.Symlink(binary, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PORT="+freePort(t), "HANDOFF_RUNTIME_DIR="+run, "HANDOFF_STATE_DIR="+filepath.Join(run, "state"),
		"HANDOFF_SOURCE="+source, "GOFLAGS=-mod=mod")
	// What a reader has written before they begin.
	for _, b := range all {
		if name := b.attrs["file"]; name != "" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, b := range all {
		if b.lang != "sh" || b.has("norun") {
			continue
		}
		if name := b.attrs["needs"]; name != "" {
			if _, err := exec.LookPath(name); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("%s:%d: no %s", path, b.line, name)
				}
				t.Skipf("%s:%d: no %s", path, b.line, name)
			}
		}
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", b.text)
		if b.has("serve") {
			cmd = exec.Command("bash", "-euc", "exec "+strings.TrimSpace(b.text))
		}
		cmd.Dir, cmd.Env = dir, env
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if b.has("serve") {
			var out lockedBuffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Signal(syscall.SIGTERM)
				cmd.Process.Signal(syscall.SIGINT) // at once
				cmd.Wait()
				if t.Failed() {
					t.Logf("%s:%d:\n%s", path, b.line, out.String())
				}
			})
			continue
		}
		out, _ := cmd.CombinedOutput()
		want := 0
		fmt.Sscan(b.attrs["exit"], &want)
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Fatalf("%s:%d: exit code %d, want %d\n%s\n%s", path, b.line, code, want, b.text, out)
		}
	}
}

var (
	mdLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdTitle = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// Links within the docs lead somewhere, those with an anchor to a heading.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	anchor := func(heading string) string {
		heading = strings.ToLower(strings.TrimSpace(heading))
		heading = regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(heading, "")
		return strings.ReplaceAll(heading, " ", "-")
	}
	for path, text := range pages(t) {
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			link := m[1]
			if strings.Contains(link, "://") {
				continue
			}
			file, hash, _ := strings.Cut(link, "#")
			target := filepath.Join("..", path)
			if file != "" {
				target = filepath.Join("..", filepath.Dir(path), file)
			}
			b, err := os.ReadFile(target)
			if info, serr := os.Stat(target); err != nil && (serr != nil || !info.IsDir()) {
				t.Errorf("%s: the link %s leads nowhere", path, link)
				continue
			}
			if hash == "" {
				continue
			}
			found := false
			for _, h := range mdTitle.FindAllStringSubmatch(string(b), -1) {
				found = found || anchor(h[1]) == hash
			}
			if !found {
				t.Errorf("%s: the link %s leads to no heading", path, link)
			}
		}
	}
}

// The reference is what the code says.
func TestReference(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "-tags", "man", "./cmd/handoff", "reference", "--dir", dir)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil || len(names) != 5 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join("../docs/reference", filepath.Base(name))); err != nil || string(got) != string(want) {
			t.Errorf("docs/reference/%s is not what the code says: make reference", filepath.Base(name))
		}
	}
}

// The examples for containers are YAML that says what the docs say of it.
func TestContainerExamples(t *testing.T) {
	t.Parallel()
	for name, wants := range map[string][]string{
		"kubernetes.yaml": {"Deployment", "readinessProbe", "livenessProbe", "startupProbe", "preStop", "terminationGracePeriodSeconds"},
		"compose.yaml":    {"healthcheck", "stop_grace_period"},
	} {
		text := read(t, "../examples/container/"+name)
		for d := yaml.NewDecoder(strings.NewReader(text)); ; {
			var v any
			if err := d.Decode(&v); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	}
	if docker, page := read(t, "../examples/container/Dockerfile"), read(t, "../docs/containers.md"); !strings.Contains(page, docker) {
		t.Error("docs/containers.md shows another Dockerfile than examples/container has")
	}
}

var mdInline = regexp.MustCompile("`((?:handoff|rackadmin) [^`\n]+)`")

// Commands within a line name commands and options that there are.
func TestDocsInline(t *testing.T) {
	t.Parallel()
	help := map[string]string{}
	of := func(command string) string {
		if _, ok := help[command]; !ok {
			out, err := exec.Command(binary, command, "--help").CombinedOutput()
			if err != nil {
				out = nil
			}
			help[command] = string(out)
		}
		return help[command]
	}
	n := 0
	for path, text := range pages(t) {
		fences := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(text, "")
		for _, m := range mdInline.FindAllStringSubmatch(fences, -1) {
			words := strings.Fields(m[1])
			command := strings.Trim(words[1], `'"`)
			if words[0] != "handoff" || strings.HasPrefix(command, "-") || command == "COMMAND" || strings.HasPrefix(command, "__") {
				continue
			}
			if command == "is" || command == "shell" || strings.Contains(m[1], "in the container") {
				continue
			}
			n++
			text := of(command)
			if command == "help" || command == "completion" {
				continue
			}
			if text == "" {
				t.Errorf("%s: `%s`: there is no command %s", path, m[1], command)
				continue
			}
			if command == "prove" {
				text += of("run")
			}
			for _, w := range words[2:] {
				if w == "--" {
					break
				}
				if flag, _, _ := strings.Cut(strings.TrimRight(w, ",."), "="); strings.HasPrefix(flag, "--") && !strings.Contains(text, flag) && flag != "--embedded" && flag != "--scratch" && flag != "--private" {
					t.Errorf("%s: `%s`: %s has no option %s", path, m[1], command, flag)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d commands were found", n)
	}
}
