package tail

import (
	"slices"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	r := New(16)
	for _, s := range []string{"one\n", "two\n\n", "three\n", "four", "\n", strings.Repeat("x", 3)} {
		r.Write([]byte(s))
	}
	if got := r.Lines(3); !slices.Equal(got, []string{"three", "four", "xxx"}) {
		t.Errorf("%q", got)
	}
	r.Write([]byte("\n\x1b[2J\x1b[31mr\n"))
	if got := r.Lines(1); !slices.Equal(got, []string{`\x1b[2Jr`}) {
		t.Errorf("%q", got)
	}
	r.Write([]byte(strings.Repeat("y", 100)))
	if got := r.Lines(9); !slices.Equal(got, []string{strings.Repeat("y", 16)}) {
		t.Errorf("%q", got)
	}
}

func TestGist(t *testing.T) {
	for text, want := range map[string]string{
		"/srv/server.js:3\nthrow new Error('no database')\n^\n\nError: no database\n    at Object.<anonymous> (/srv/server.js:3:7) {\n  code: 'X'\n}\n\nNode.js v20.20.2":                          "Error: no database",
		"node:internal/modules/cjs/loader:1228\n  throw err;\n  ^\n\nError [ERR_MODULE_NOT_FOUND]: Cannot find package 'x'\n    at y\n\nNode.js v22.1.0":                                           "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'x'",
		"Traceback (most recent call last):\n  File \"app.py\", line 1, in <module>\nKeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n\ndb.exc.DownError: no": "db.exc.DownError: no",
		"panic: no database\n\ngoroutine 1 [running]:\nmain.main()\n\t/srv/main.go:4 +0x1":                                                                                                         "panic: no database",
		"connecting\nno database": "no database",
		"":                        "",
	} {
		if got := Gist(strings.Split(text, "\n")); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// The last lines of a program begin with the message of the error that ended it, also if the
// stack below it is long; what follows a stack counts more.
func TestLinesOfAStack(t *testing.T) {
	stack := strings.Repeat("    at Server.emit (node:events:524:28)\n", 8)
	node := "node:events:502\n      throw er; // Unhandled 'error' event\n      ^\n\nError: listen EADDRINUSE: address already in use :::3000\n" + stack +
		"Emitted 'error' event on Server instance at:\n" + stack + "  code: 'EADDRINUSE',\n  port: 3000\n}\n\nNode.js v20.20.2\n"
	for text, want := range map[string]string{
		node:                             "Error: listen EADDRINUSE: address already in use :::3000",
		node + "and then\nno database\n": "    at Server.emit (node:events:524:28)",
		stack + stack:                    "    at Server.emit (node:events:524:28)",
		"Error: no database\n    at y":   "Error: no database",
	} {
		r := New(4 << 10)
		r.Write([]byte(text))
		if got := r.Lines(10); got[0] != want || len(got) > 10 {
			t.Errorf("%q: %q", text, got)
		}
	}
}
