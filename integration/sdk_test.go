package integration

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// nodeBin returns the folder of a Node version, "" being the one in PATH.
func nodeBin(t *testing.T, version string) string {
	t.Helper()
	if version == "" {
		path, err := exec.LookPath("node")
		if err != nil {
			t.Skip(err)
		}
		return filepath.Dir(path)
	}
	dir, _ := filepath.Abs("node_modules/node" + version + "/bin")
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no Node " + version + "; make test installs it")
	}
	return dir
}

// nodeTest runs a file of the SDK's own suites, with these arguments of node --test.
func nodeTest(t *testing.T, version, file string, env []string, args ...string) (out string, failed bool) {
	t.Helper()
	sdk, _ := filepath.Abs("../sdk/node")
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	if version != "18" { // which has no other where there is no terminal
		args = append(args, "--test-reporter=tap")
	}
	// By its path: exec looks a name up in the PATH of this process.
	cmd := exec.CommandContext(ctx, filepath.Join(nodeBin(t, version), "node"), append(append([]string{"--test"}, args...), file)...)
	cmd.WaitDelay = time.Second
	cmd.Dir = filepath.Join(sdk, "test")
	cmd.Env = append(os.Environ(), "PATH="+nodeBin(t, version)+":"+os.Getenv("PATH"), "HANDOFF_BIN="+binary)
	cmd.Env = append(cmd.Env, env...)
	b, err := cmd.CombinedOutput()
	return string(b), err != nil
}

// The SDK and its drop-ins: a suite for each, written from the interfaces of the
// originals and their measured failures. On the Node in PATH, and with -long on others.
func TestNodeSDK(t *testing.T) {
	t.Parallel()
	versions := []string{""}
	if *long {
		versions = []string{"", "18", "22", "24", "26"}
	}
	for _, version := range versions {
		name := version
		if name == "" {
			name = "default"
		}
		t.Run("node "+name, func(t *testing.T) {
			files, _ := filepath.Glob("../sdk/node/test/*.test.js")
			if len(files) < 5 {
				t.Fatalf("%v", files)
			}
			for _, file := range files {
				base := filepath.Base(file)
				t.Run(base, func(t *testing.T) {
					t.Parallel() // they mostly wait
					if out, failed := nodeTest(t, version, base, nil); failed {
						t.Error(out)
					}
				})
			}
		})
	}
}

// The control: under a module that never reloads, each case of a reload fails once it
// has asked for one (helper.js has it pass if it fails so), and with -long, that no other
// case does. For each drop-in: how many such cases there are at least.
func TestNodeSDKControl(t *testing.T) {
	t.Parallel()
	control, _ := filepath.Abs("../sdk/node/test/never-reloads.js")
	for _, c := range []struct {
		suite, of string
		cases     int
	}{
		{"recluster", "recluster", 11}, {"cluster-master", "cluster-master", 11}, {"dutch-master", "dutch-master", 9},
		{"rackman", "rackman", 5}, {"sticky-listen", "recluster", 2},
	} {
		t.Run(c.suite, func(t *testing.T) {
			t.Parallel()
			var args []string
			if !*long {
				args = []string{"--test-name-pattern=reloads.$"}
			}
			out, failed := nodeTest(t, "", c.suite+".test.js", []string{"HANDOFF_TEST_MODULE=" + control, "HANDOFF_TEST_OF=" + c.of}, args...)
			cases := len(regexp.MustCompile(`(?m)^ *ok \d+ - .*\[reloads\]$`).FindAllString(out, -1))
			if failed || cases < c.cases {
				t.Errorf("%d cases of a reload fail as they must:\n%s", cases, out)
			}
		})
	}
}

// recluster's own suite, of its npm package, with its module replaced by the drop-in.
// It takes for granted that a worker needs more than 100 ms to boot ("0 workers
// serving requests"), which the original does not pass on a fast machine either: each
// worker sleeps for 120 ms first. Of the original one assertion fails always ("4
// workers should be active according to cluster"; Node ≥ 17 drops a worker that
// disconnects at once).
func TestReclustersOwnSuite(t *testing.T) {
	t.Parallel()
	suite, _ := filepath.Abs("node_modules/recluster/test")
	if _, err := os.Stat(suite); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no recluster; make test installs it")
	}
	dir := t.TempDir()
	modules, _ := filepath.Abs("node_modules")
	sdk, _ := filepath.Abs("../sdk/node/recluster.js")
	if err := os.CopyFS(filepath.Join(dir, "test"), os.DirFS(suite)); err != nil {
		t.Fatal(err)
	}
	os.Symlink(modules, filepath.Join(dir, "node_modules"))
	quoted, _ := json.Marshal(sdk)
	put(t, filepath.Join(dir, "index.js"), "module.exports = require("+string(quoted)+")", 0o644)
	slow := filepath.Join(dir, "slow.cjs")
	put(t, slow, "if (process.env.WORKER_ID !== undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 120)", 0o644)
	// termination.js is made of moments of 20 ms, which a busy machine does not keep.
	files := []string{"index.js"}
	if *long {
		files = append(files, "termination.js")
	}
	for range times(3, 1) {
		for _, file := range files {
			cmd := exec.Command("node", "test/"+file)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HANDOFF_BIN="+binary, "NODE_OPTIONS=--require "+slow)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "\n# ok\n") {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
			if m := regexp.MustCompile(`# pass +(\d+)`).FindStringSubmatch(string(out)); m != nil {
				t.Logf("%s: %s assertions", file, m[1])
			}
		}
	}
}

// sticky-listen's own suite, of its npm package, with both modules replaced by the
// drop-ins.
func TestStickyListensOwnSuite(t *testing.T) {
	t.Parallel()
	suite, _ := filepath.Abs("node_modules/sticky-listen/test")
	if _, err := os.Stat(suite); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no sticky-listen; make test installs it")
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "test"), os.DirFS(suite)); err != nil {
		t.Fatal(err)
	}
	module := func(path, name string) {
		sdk, _ := filepath.Abs("../sdk/node/" + name)
		quoted, _ := json.Marshal(sdk)
		os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755)
		put(t, filepath.Join(dir, path), "module.exports = require("+string(quoted)+")", 0o644)
	}
	module("index.js", "sticky-listen.js")
	module("node_modules/recluster/index.js", "recluster.js")
	for range times(3, 1) {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		cmd := exec.CommandContext(ctx, "node", "test/test-basic.js") // listens on 8099, or fails
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HANDOFF_BIN="+binary)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		cancel()
	}
}

// What npm would publish, installed into an empty folder: it finds its binary, and
// runs; there is nothing in it that runs at the installation.
func TestNodePackage(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "npm")
	cpu := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	cmd := exec.Command("../tools/npm/build.sh", out)
	if !*long { // it compiles everything once more for each
		cmd.Args = append(cmd.Args, cpu+":"+runtime.GOARCH)
	}
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := exec.Command("npm", "pack", "--dry-run", "--json", "../sdk/node").Output()
	var packs []struct {
		Size  int
		Files []struct{ Path string }
	}
	if err != nil || json.Unmarshal(b, &packs) != nil || len(packs) != 1 {
		t.Fatalf("%v\n%s", err, b)
	}
	if packs[0].Size > 60<<10 {
		t.Errorf("%d bytes packed", packs[0].Size)
	}
	var names []string
	for _, f := range packs[0].Files {
		names = append(names, f.Path)
		if strings.HasPrefix(f.Path, "test/") || strings.HasSuffix(f.Path, ".go") {
			t.Errorf("%s is in the package", f.Path)
		}
	}
	t.Logf("%d bytes: %s", packs[0].Size, strings.Join(names, " "))
	var manifest struct {
		Scripts      map[string]string
		Dependencies map[string]string
	}
	if err := json.Unmarshal([]byte(read(t, "../sdk/node/package.json")), &manifest); err != nil || len(manifest.Scripts) > 0 || len(manifest.Dependencies) > 0 {
		t.Errorf("%+v %v", manifest, err)
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "package.json"), `{"name": "x", "version": "1.0.0", "private": true}`, 0o644)
	tarballs, _ := filepath.Glob(filepath.Join(out, "handoff-linux-"+cpu+"-*.tgz"))
	own, _ := filepath.Glob(filepath.Join(out, "handoff-node-*.tgz"))
	cmd = exec.Command("npm", append([]string{"install", "--offline", "--no-audit", "--no-fund", "--loglevel=error"}, append(tarballs, own...)...)...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, b)
	}
	put(t, filepath.Join(dir, "app.js"), "require('http').createServer((q, r) => r.end(String(require('@handoff/node').slot))).listen(process.env.PORT)", 0o644)
	put(t, filepath.Join(dir, "main.mjs"), `import recluster from '@handoff/node/recluster'
import { isHandoff } from '@handoff/node'
const b = recluster(new URL('app.js', import.meta.url).pathname, { workers: 1 })
b.on('ready', async () => {
  console.log(isHandoff, await (await fetch('http://127.0.0.1:' + process.env.PORT)).text())
  b.terminate(() => console.log('terminated'))
})
b.run()`, 0o644)
	cmd = exec.Command("node", "main.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PORT="+freePort(t), "PATH="+nodeBin(t, ""), "HANDOFF_BIN=")
	if b, err := cmd.CombinedOutput(); err != nil || string(b) != "false 0\nterminated\n" {
		t.Errorf("%v\n%s", err, b)
	}
}

// The types say what the modules do: sdk/node/test/types.ts and types.mts are compiled,
// and what is marked there as wrong must be.
func TestNodeTypes(t *testing.T) {
	t.Parallel()
	tsc, _ := filepath.Abs("node_modules/typescript/bin/tsc")
	if _, err := os.Stat(tsc); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no TypeScript; make test installs it")
	}
	dir := t.TempDir()
	modules, _ := filepath.Abs("node_modules")
	sdk, _ := filepath.Abs("../sdk/node")
	os.MkdirAll(filepath.Join(dir, "node_modules/@handoff"), 0o755)
	os.Symlink(sdk, filepath.Join(dir, "node_modules/@handoff/node"))
	os.Symlink(filepath.Join(modules, "@types"), filepath.Join(dir, "node_modules/@types"))
	os.Symlink(filepath.Join(modules, "undici-types"), filepath.Join(dir, "node_modules/undici-types"))
	files := []string{"types.ts", "types.mts"} // CommonJS and ESM
	for _, name := range files {
		put(t, filepath.Join(dir, name), read(t, filepath.Join(sdk, "test", name)), 0o644)
	}
	for _, how := range [][]string{{"--module", "node16"}, {"--module", "node16", "--esModuleInterop"}} {
		cmd := exec.Command("node", append(append([]string{tsc, "--noEmit", "--strict", "--skipLibCheck", "false", "--preserveSymlinks", "--types", "node"}, files...), how...)...)
		cmd.Dir = dir
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("tsc %v: %v\n%s", how, err, b)
		}
	}
}

// The examples of the package's README run as they stand there.
func TestNodeReadme(t *testing.T) {
	t.Parallel()
	text := read(t, "../sdk/node/README.md")
	dir := t.TempDir()
	sdk, _ := filepath.Abs("../sdk/node")
	os.MkdirAll(filepath.Join(dir, "node_modules/@handoff"), 0o755)
	os.Symlink(sdk, filepath.Join(dir, "node_modules/@handoff/node"))
	var names []string
	for _, m := range regexp.MustCompile("(?s)```js\n// (\\S+)\n(.*?)```").FindAllStringSubmatch(text, -1) {
		put(t, filepath.Join(dir, m[1]), m[2], 0o644)
		names = append(names, m[1])
	}
	if len(names) != 6 {
		t.Fatalf("%v", names)
	}
	for _, name := range []string{"recluster.js", "master.js", "dutch.js", "sticky.js"} {
		port := freePort(t)
		cmd := exec.Command("node", name)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HANDOFF_BIN="+binary, "PORT="+port)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitPort(t, port)
		w := &world{t: t, addr: "127.0.0.1:" + port}
		if got := w.answer("/"); !strings.HasPrefix(got, "slot ") && !strings.HasPrefix(got, "pid ") {
			t.Errorf("%s: %q", name, got)
		}
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	w := start(t, options{app: []string{filepath.Join(dir, "server.js")}, flags: []string{"-n", "2", "--ready-when", "ready"}, env: []string{"PORT=" + freePort(t)}})
	if got := w.answer("/"); !strings.HasSuffix(got, "generation 1") {
		t.Errorf("%q", got)
	}
	w.reload()
	w.stop()
}
