package npm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for _, c := range []struct{ text, other, want string }{
		{`{"scripts": {"start": "node server.js"}}`, "", `command = ["node", "server.js"]`},
		{`{"scripts": {"start": "node --enable-source-maps  dist/main.js --port 80"}}`, "", `command = ["node", "--enable-source-maps", "dist/main.js", "--port", "80"]`},
		{`{"scripts": {"start": "NODE_ENV=production node server.js"}}`, "", `command = ["npm", "start"]`},
		{`{"scripts": {"start": "node server.js | pino-pretty"}}`, "", `command = ["npm", "start"]`},
		{`{"scripts": {"start": " "}}`, "server.js", `command = ["node", "server.js"]`},
		{`{"scripts": {"start": "next start"}}`, "", `command = ["npm", "start"]`},
		{`{"scripts": {"start": "node server.js", "prestart": "tsc"}}`, "", `command = ["npm", "start"]`},
		{`{"name": "web"}`, "server.js", `command = ["node", "server.js"]`},
	} {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, File), []byte(c.text), 0o644)
		if c.other != "" {
			os.WriteFile(filepath.Join(dir, c.other), nil, 0o644)
		}
		text, err := Read(filepath.Join(dir, File))
		if err != nil || strings.TrimSpace(string(text)) != c.want || !Starts(dir) {
			t.Errorf("%s: %s, %v; want %s", c.text, text, err, c.want)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	os.WriteFile(path, []byte(`{"name": "web"}`), 0o644)
	if _, err := Read(path); !errors.Is(err, ErrNone) || Starts(dir) || !Is(path) || Is(dir) {
		t.Error(err)
	}
	os.WriteFile(path, []byte("{\n,"), 0o644)
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "package.json:2:1: ") {
		t.Error(err)
	}
}
