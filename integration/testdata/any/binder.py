# Binds UDP sockets in four threads, again and again, and serves how often; has
# started something in the background that it does not look after.
import http.server, os, socket, subprocess, threading, time

counts = [0] * 4

def binds(i):
    while True:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.close()
        counts[i] += 1
        time.sleep(0.0005)

for i in range(4):
    threading.Thread(target=binds, args=(i,), daemon=True).start()
# Its parent ends at once: it is an orphan, as of a daemon.
helper = int(subprocess.run(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], capture_output=True).stdout)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (" ".join(map(str, counts)) if self.path == "/binds" else str(helper)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
