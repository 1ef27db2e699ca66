package hostile

// The programs under attack. The first worker of the first generation is the attacker: it
// runs the file $ATTACK, in a process of its own, with the listening socket as
// descriptor 3. Everybody answers, with slot and generation.

const pythonServer = `
import http.server, os, signal, socket, subprocess, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    def do_GET(self):
        self.send_response(200)
        for k, v in ("Content-Length", "3"), ("X-Slot", os.environ["WORKER_ID"]), ("X-Generation", os.environ["HANDOFF_GENERATION"]), ("X-Pid", str(os.getpid())):
            self.send_header(k, v)
        close = "close" in self.headers.get("Connection", "")
        if close or stopping: self.send_header("Connection", "close"); self.close_connection = True
        self.end_headers(); self.wfile.write(b"ok\n")
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False
    def handle_error(self, *a): pass
stopping = False
s = S((os.environ["HOST"], int(os.environ["PORT"])), H)
def stop(*a):
    global stopping
    stopping = True
    threading.Thread(target=s.shutdown).start()
signal.signal(signal.SIGTERM, stop)
if os.environ["WORKER_ID"] == "0" and os.environ["HANDOFF_GENERATION"] == "1":
    fd = os.dup2(s.fileno(), 3) if s.fileno() != 3 else 3
    os.set_inheritable(3, True)
    subprocess.Popen([os.environ["PYTHON"], os.environ["ATTACK"]], pass_fds=[3])
s.serve_forever()
s.server_close()
`

const nodeServer = `
'use strict'
const http = require('http')
const server = http.createServer((req, res) => {
  res.setHeader('X-Slot', process.env.WORKER_ID)
  res.setHeader('X-Generation', process.env.HANDOFF_GENERATION)
  res.setHeader('X-Pid', process.pid)
  res.end('ok\n')
})
server.listen(Number(process.env.PORT), process.env.HOST, () => {
  if (process.env.WORKER_ID !== '0' || process.env.HANDOFF_GENERATION !== '1') return
  require('child_process').spawn(process.env.PYTHON, [process.env.ATTACK], { stdio: ['ignore', 'inherit', 'inherit', server._handle.fd] })
})
`

// attacker is before each attack: fd is the listening socket of its worker. When the test
// says go, the attack begins; it says done when it has done what it can, or goes on with it.
const attacker = `
import ctypes, errno, fcntl, os, signal, socket, struct, sys, threading, time
fd = 3
libc = ctypes.CDLL(None, use_errno=True)
here = os.path.dirname(os.path.abspath(__file__))
host, port = os.environ["HOST"], int(os.environ["PORT"])
sock = socket.socket(fileno=os.dup(fd))
def wait(name):
    while not os.path.exists(os.path.join(here, name)): time.sleep(.005)
def say(name, text="x"):
    with open(os.path.join(here, name + "~"), "w") as f: f.write(str(text))
    os.rename(os.path.join(here, name + "~"), os.path.join(here, name))
def may(f, *a):
    try: return f(*a)
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
wait("go")
`
