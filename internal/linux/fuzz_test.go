package linux

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What /proc shows of other users' processes and sockets has names in it that they have
// chosen.

func FuzzTCP(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4321 1 0000000000000000 100 0 0 10 0\n")
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n")
	f.Fuzz(func(t *testing.T, line string) {
		s, ok := parseTCP(line)
		if ok && (s.Listening != (strings.Fields(line)[3] == "0A")) {
			t.Errorf("%q: %+v", line, s)
		}
	})
}

func FuzzUnix(f *testing.F) {
	f.Add("Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 123 /run/a b.sock\n0: 00000003 00000000 00000000 0001 03 124\n")
	if b, err := os.ReadFile("/proc/self/net/unix"); err == nil {
		f.Add(string(b[:min(len(b), 2000)]))
	}
	f.Fuzz(func(t *testing.T, text string) {
		all := parseUnix(text)
		if len(all) > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %v", text, all)
		}
		for _, s := range all {
			if path := s.Path; strings.ContainsRune(path, '\n') {
				t.Errorf("%q: %q", text, path)
			}
		}
	})
}

func FuzzSocketLink(f *testing.F) {
	f.Add("socket:[123]")
	f.Add("pipe:[1]")
	f.Add("/tmp/socket:[1]")
	f.Fuzz(func(t *testing.T, target string) {
		if n := parseSocket(target); n != 0 && !strings.HasPrefix(target, "socket:[") {
			t.Errorf("%q: %d", target, n)
		}
	})
}

func FuzzField(f *testing.F) {
	f.Add("Name:\tx\nTgid:\t12\nPid:\t13\n", "Tgid:", 10)
	f.Add("pos:\t0\nflags:\t02004002\n", "flags:", 8)
	f.Add("pos:\t0\nflags:\t02\nmnt_id:\t15\nPid:\t-1\n", "Pid:", 10)
	f.Fuzz(func(t *testing.T, text, name string, base int) {
		if base != 0 && (base < 2 || base > 36) {
			return
		}
		n, err := parseField(text, name, base)
		if err != nil && n != 0 || err == nil && !strings.Contains(text, name) {
			t.Errorf("%q of %q: %d, %v", name, text, n, err)
		}
	})
}

func FuzzChildren(f *testing.F) {
	f.Add("12 13 14 ")
	f.Add("0 -1 x")
	f.Fuzz(func(t *testing.T, text string) {
		for _, pid := range parseChildren(text) {
			if pid <= 0 {
				t.Errorf("%q: %d", text, pid) // kill(2) would mean a group, or all
			}
		}
	})
}

// An environment, and a command line, of a process that may write into it what it likes.
func FuzzZeros(f *testing.F) {
	f.Add("PATH=/bin\x00A=\x00HANDOFF_WORKER=1\x00", "HANDOFF_WORKER")
	f.Add("\x00\x00", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		all := splitZeros(text)
		if strings.Join(all, "\x00") != strings.TrimSuffix(text, "\x00") {
			t.Errorf("%q: %q", text, all)
		}
		if v := Lookup(all, name); v != "" && !strings.Contains(text, name+"="+v) {
			t.Errorf("%s of %q: %q", name, text, v)
		}
	})
}

// A path, in a folder that another user fills with links: what root opens to write to is
// what the path says, or nothing.
func FuzzOpenOutput(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	for _, s := range []string{"ta", "tla", "tua", "tusa", "ts", "t.a", "tpa", "txa", "tpta", "t/a", "/ta", "ttuua", "tdta"} {
		f.Add([]byte(s))
	}
	base, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	os.Chmod(base, 0o755)
	words := map[byte]string{'t': "theirs", 'u': "..", '.': ".", '/': "", 'a': "a", 'b': "b", 's': "secret", 'l': "out", 'p': "up", 'x': "abs", 'o': "loop", 'd': "dot", 'f': "fifo"}
	theirs := filepath.Join(base, "theirs")
	os.MkdirAll(filepath.Join(base, "secret"), 0o700)
	os.MkdirAll(filepath.Join(theirs, "theirs"), 0o755)
	for name, to := range map[string]string{"out": "../secret", "up": "..", "abs": base + "/secret", "loop": "loop", "dot": ".", "s": "../secret/a", "b": "../secret/b"} {
		for _, dir := range []string{theirs, filepath.Join(theirs, "theirs")} {
			os.Symlink(to, filepath.Join(dir, name))
			os.Lchown(filepath.Join(dir, name), 65534, 65534)
		}
	}
	unix.Mkfifo(filepath.Join(theirs, "fifo"), 0o666)
	for _, path := range []string{theirs, filepath.Join(theirs, "theirs"), filepath.Join(theirs, "fifo")} {
		os.Lchown(path, 65534, 65534)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		if len(said) > 200 {
			return
		}
		path := base
		for _, c := range said {
			if w, ok := words[c]; ok {
				path += "/" + w
			}
		}
		file, err := OpenOutput(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return
		}
		defer file.Close()
		real, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(file.Fd())))
		if real != filepath.Clean(path) {
			t.Errorf("%s is %s", path, real)
		}
	})
}

func FuzzFileUser(f *testing.F) {
	f.Add("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t0\t0\t0\t5\nGroups:\t1 2 \n")
	f.Add("Uid:\t1\nGid:\t-1\t0\t0\t0\n")
	f.Fuzz(func(t *testing.T, text string) {
		if u, err := parseFileUser(text); err == nil && (u.UID < 0 || u.GID < 0) {
			t.Errorf("%+v of %q", u, text)
		}
	})
}
