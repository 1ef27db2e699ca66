package process

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/joho/godotenv"
	"golang.org/x/sys/unix"
)

// Each line of twice the one before: without a bound it is 2^60 bytes, in root's process.
func TestEnvFileIsBounded(t *testing.T) {
	text := "A0=0123456789\n"
	for i := range 60 {
		last := "$A" + strconv.Itoa(i)
		text += "A" + strconv.Itoa(i+1) + "=" + last + last + "\n"
	}
	if vars, err := parseEnvFile([]byte(text)); err != errEnvLarge {
		t.Errorf("%d variables, %v", len(vars), err)
	}
	text = "A=" + strings.Repeat("x", 1<<20) + "\n" + strings.Repeat("B=$A\n", 1000)
	if _, err := parseEnvFile([]byte(text)); err != errEnvLarge {
		t.Errorf("%v", err)
	}
}

// What is large is read in a time that grows as it does: the loop waits for it.
func TestEnvFileIsLarge(t *testing.T) {
	var many strings.Builder
	var set []string
	for i := 0; many.Len() < maxEnvFile/2; i++ {
		name := "A" + strconv.Itoa(i)
		many.WriteString(name + "=\n")
		set = append(set, "B"+name[1:]+"=1")
	}
	for name, text := range map[string]string{
		"variables": many.String(), "comments": strings.Repeat("#\n", maxEnvFile/2), "dollars": "A=" + strings.Repeat("$", maxEnvFile/4),
		"backslashes": `A="` + strings.Repeat(`\`, maxEnvFile/2) + ` "`, "hashes": "A=" + strings.Repeat(" #", maxEnvFile/4), "quotes": "A=" + strings.Repeat(`"`, maxEnvFile/2),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, ".env")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Command{Env: []string{"PATH=/bin"}, EnvFile: path, Set: set}
		env, err := c.environ(dir)
		if err == nil && len(env) < len(set) {
			t.Errorf("%s: %d variables", name, len(env))
		}
	}
}

// Who can write to the folder can put anything in the place of the file.
func TestEnvFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/dev/ptmx", filepath.Join(dir, "terminal"))
	os.Symlink("/dev/zero", filepath.Join(dir, "zero"))
	os.Symlink("/dev/null", filepath.Join(dir, "null"))
	os.WriteFile(filepath.Join(dir, "huge"), nil, 0o600)
	os.Truncate(filepath.Join(dir, "huge"), 1<<40)
	for _, name := range []string{"fifo", "terminal", "zero", "huge", "."} {
		if vars, err := readEnvFile(filepath.Join(dir, name), nil); err == nil {
			t.Errorf("%s: %v", name, vars)
		}
	}
	if vars, err := readEnvFile(filepath.Join(dir, "null"), nil); err != nil || len(vars) > 0 {
		t.Errorf("%v, %v", vars, err)
	}
}

// What a file says is what godotenv has read, which was used before; but for a word alone
// at the end, a NUL, and what comes to more than 4 MiB.
func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{"COLOR=red\nMORE='a b'\n", "export A=1 # one\nB: \"x\\n$A ${A} \\$A $(A\"\n", "A='a\\'b' c=d", "A=\"\\\\n\"\nB", "=x", "A B=\xa0\xff\n#\r\nC=#d #e #f\r\n", "export\u00a0A=1\nexport=2",
		"A=1\nB=${A\nC=$A}$\nD=$$A\nE=\\\\$A\n", "A=\"\"\"\nB=''x''"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseEnvFile(text)
		size := 0
		for k, v := range got {
			if k == "" || strings.ContainsAny(k, "=\x00\n") || strings.ContainsRune(v, 0) {
				t.Errorf("%q: variable %q = %q", text, k, v)
			}
			size += len(k) + len(v)
		}
		if size > maxEnvFile {
			t.Errorf("%d bytes", size)
		}
		if len(text) > 1<<10 || strings.Count(string(text), "$") > 8 || strings.ContainsRune(string(text), 0) {
			return // what godotenv makes of it may have no end
		}
		want, werr := godotenv.UnmarshalBytes(text)
		delete(want, "")
		if (err == nil) != (werr == nil) || err == nil && !maps.Equal(got, want) {
			t.Errorf("%q: %q, %v; godotenv says %q, %v", text, got, err, want, werr)
		}
	})
}
