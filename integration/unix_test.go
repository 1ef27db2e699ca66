package integration

import (
	"os"
	"path/filepath"
	"testing"

	"handoff/internal/load"
)

// Programs on a unix path, as they are: they probe it, remove what is there, bind, change its
// mode, and remove it at their end. Nobody loses a connection over reloads and killed masters,
// and in the end the path is gone, as each of them leaves it.
func TestUnixPath(t *testing.T) {
	t.Run("bind", func(t *testing.T) {
		// At SIGTERM it closes what it has accepted and not read, as asyncio does.
		unixPath(t, python(t, `
path = os.environ["SOCK"]
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(path); sys.exit("somebody serves at " + path)
except (ConnectionRefusedError, FileNotFoundError): pass
s.close()
if os.path.exists(path): os.unlink(path)
class S(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
H.address_string = lambda self: ""
H.protocol_version = "HTTP/1.0"
server = S(path, H)
os.chmod(path, 0o777)
def stop(*_): threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
server.server_close()
os.unlink(path)
`, options{flags: []string{"-n", "2"}}))
	})
	t.Run("node", func(t *testing.T) {
		app := filepath.Join(t.TempDir(), "server.js")
		if err := os.WriteFile(app, []byte(`
const fs = require('fs'), path = process.env.SOCK
fs.rmSync(path, { force: true })
if (fs.existsSync(path)) fs.unlinkSync(path)
const server = require('http').createServer((req, res) => res.end('ok')).listen(path, () => fs.chmodSync(path, 0o777))
process.on('exit', () => { try { fs.unlinkSync(path) } catch (err) { if (err.code !== 'ENOENT') throw err } })
`), 0o644); err != nil {
			t.Fatal(err)
		}
		unixPath(t, options{app: []string{app}, flags: []string{"-n", "2", "--keepalive-linger", "200ms"}})
	})
}

func unixPath(t *testing.T, o options) {
	path := filepath.Join(t.TempDir(), "s")
	o.env = append(o.env, "SOCK="+path)
	w := start(t, o)
	run := startLoad(load.Config{Network: "unix", Addr: path, Clients: 8})
	run.Await(20, testTimeout)
	for i := range times(20, 3) {
		if i == 1 {
			w.killMaster()
		}
		w.reload()
		run.Await(20, testTimeout)
		w.retired(2)
	}
	w.nothingLostMixed(run)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v: the mode that the program has set is not there", info, err)
	}
	w.stop()
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
