package programs

// nodePath is an HTTP server of Node at a path.
const nodePath = "require('http').createServer((req, res) => res.end('ok\\n')).listen(process.env.SOCK)\n"

const haproxyUnix = "defaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\nfrontend f\n  bind %SOCK%\n  http-request return status 200 content-type text/plain string ok\n"

var pathRows = []row{
	{kind: path, name: "uvicorn --uds", needs: []string{"uvicorn", "nginx"}, from: []string{"apt:uvicorn"}, args: []string{"uvicorn", "--log-level", "warning", "--uds", "%SOCK%", "app:asgi"}},
	{kind: path, name: "uvicorn --fd 3", needs: []string{"uvicorn", "nginx"}, from: []string{"apt:uvicorn"}, flags: []string{"--listen", "unix:%SOCK%"}, args: []string{"uvicorn", "--log-level", "warning", "--fd", "3", "app:asgi"}},
	{kind: path, name: "gunicorn sync", needs: []string{"gunicorn", "nginx"}, from: []string{"apt:gunicorn"}, args: []string{"gunicorn", "-b", "unix:%SOCK%", "app:app"}},
	{kind: path, name: "gunicorn gthread", needs: []string{"gunicorn", "nginx"}, from: []string{"apt:gunicorn"}, args: []string{"gunicorn", "-k", "gthread", "--threads", "4", "-b", "unix:%SOCK%", "app:app"}},
	{kind: path, name: "gunicorn gevent", needs: []string{"gunicorn", "nginx", "/usr/lib/python3/dist-packages/gevent"}, from: []string{"apt:gunicorn", "apt:python3-gevent"}, args: []string{"gunicorn", "-k", "gevent", "-b", "unix:%SOCK%", "app:app"}},
	{kind: path, name: "hypercorn", needs: []string{"hypercorn", "nginx"}, from: []string{"apt:python3-hypercorn"}, args: []string{"hypercorn", "-b", "unix:%SOCK%", "app:asgi"}},
	{kind: path, name: "waitress", needs: []string{"waitress-serve", "nginx"}, from: []string{"apt:python3-waitress"}, args: []string{"waitress-serve", "--unix-socket=%SOCK%", "app:app"}},
	{kind: path, name: "daphne", needs: []string{"daphne", "nginx"}, from: []string{"apt:daphne"}, args: []string{"daphne", "-u", "%SOCK%", "-v", "0", "app:asgi"}, flags: alone, note: "it holds a lock, PATH.lock", limit: "it shuts its listener down"},
	{kind: path, name: "puma", needs: []string{"puma", "nginx"}, from: []string{"apt:puma"}, args: []string{"puma", "-q", "-t", "36:36", "-b", "unix://%SOCK%", "config.ru"}},
	{kind: path, name: "unicorn", needs: []string{"unicorn", "nginx"}, from: []string{"apt:unicorn"}, args: []string{"unicorn", "-l", "%SOCK%", "config.ru"}},
	{kind: path, name: "thin", needs: []string{"thin", "nginx"}, from: []string{"apt:thin"}, args: []string{"thin", "start", "-q", "-S", "%SOCK%", "-R", "config.ru"}},
	{kind: path, name: "php-fpm", needs: []string{"php-fpm8.2", "nginx"}, from: []string{"apt:php8.2-fpm"}, files: map[string]string{"fpm.conf": fpmConf + "listen = %SOCK%\n"}, args: []string{"php-fpm8.2", "-R", "-F", "-y", "%DIR%/fpm.conf"}, behind: "fastcgi"},
	{kind: path, name: "uWSGI", needs: []string{"uwsgi", "nginx", "/usr/lib/uwsgi/plugins/python3*"}, from: []string{"apt:uwsgi-core", "apt:uwsgi-plugin-python3"}, behind: "uwsgi",
		args: []string{"uwsgi", "--plugin", "python3", "--master", "--disable-logging", "--socket", "%SOCK%", "--module", "app:app"}},
	{kind: path, name: "uWSGI --http-socket", needs: []string{"uwsgi", "nginx", "/usr/lib/uwsgi/plugins/python3*"}, from: []string{"apt:uwsgi-core", "apt:uwsgi-plugin-python3"},
		args: []string{"uwsgi", "--plugin", "python3", "--master", "--disable-logging", "--http-socket", "%SOCK%", "--module", "app:app"}},
	{kind: path, name: "starman", needs: []string{"starman", "nginx"}, from: []string{"apt:starman"}, files: map[string]string{"app.psgi": psgi}, args: []string{"starman", "--workers", "20", "--listen", "%SOCK%", "app.psgi"}, flags: []string{"--drain-signal", "QUIT"}},
	{kind: path, name: "Mojolicious daemon", needs: []string{"morbo", "nginx"}, from: []string{"apt:libmojolicious-perl"}, files: map[string]string{"app.pl": mojolicious},
		args: []string{"perl", "app.pl", "daemon", "-m", "production", "-l", "http+unix://%MOJO%"}, flags: []string{"--drain-signal", "QUIT"}},
	{kind: path, name: "Node", needs: []string{"node", "nginx"}, files: map[string]string{"main.js": nodePath}, args: []string{"node", "main.js"}},
	{kind: path, name: "Node behind npm", needs: []string{"npm", "nginx"}, files: map[string]string{"server.js": nodePath}, args: []string{"npm", "start", "--silent"}},
	{kind: path, name: "Fastify", needs: []string{"node", "nginx", in("fastify")}, from: []string{"npm:fastify@5"}, files: map[string]string{"main.js": "require('fastify')().all('/', async () => 'ok\\n').listen({ path: process.env.SOCK })\n"}, args: []string{"node", "main.js"}},
	{kind: path, name: "Bun", needs: []string{"bun", "nginx"}, from: []string{"npm:bun@1"}, files: map[string]string{"main.ts": "const server = Bun.serve({ unix: process.env.SOCK, fetch: async req => { await req.text(); return new Response('ok\\n') } })\nprocess.on('SIGTERM', async () => { await server.stop(); process.exit() })\n"}, args: []string{"bun", "main.ts"}},
	{kind: path, name: "HAProxy", needs: []string{"haproxy", "nginx"}, from: []string{"apt:haproxy"}, files: map[string]string{"haproxy.cfg": haproxyUnix}, args: []string{"haproxy", "-db", "-f", "haproxy.cfg"}, flags: []string{"--drain-signal", "USR1"}, getOnly: true},
	{kind: path, name: "caddy", needs: []string{"caddy", "nginx"}, from: []string{"apt:caddy"}, files: map[string]string{"Caddyfile": "{\n admin off\n auto_https off\n}\n:80 {\n bind unix/%SOCK%\n respond \"ok\"\n}\n"}, args: []string{"caddy", "run", "--config", "Caddyfile"}},
	{kind: path, name: "Go, the SDK", needs: []string{"go", "nginx"}, pkg: "gosdk", env: []string{"NETWORK=unix", "PORT=%SOCK%"}, args: []string{"%DIR%/program"}},
	{kind: path, name: "memcached", needs: []string{"memcached"}, from: []string{"apt:memcached"}, args: []string{"memcached", "-u", "root", "-s", "%SOCK%", "-m", "16"}, asks: lineOf("unix", "version\r\n", "VERSION")},
	{kind: path, name: "Redis", needs: []string{"redis-server"}, from: []string{"apt:redis-server"}, args: []string{"redis-server", "--port", "0", "--unixsocket", "%SOCK%", "--save", "", "--loglevel", "warning"}, asks: lineOf("unix", "PING\r\n", "+PONG\r\n"), flags: alone},
}

const unboundConf = `server:
  interface: 127.0.0.1@%PORT%
  do-daemonize: no
  use-syslog: no
  chroot: ""
  username: ""
  pidfile: ""
  directory: "%DIR%"
  local-zone: "example.test." static
  local-data: "www.example.test. A 127.0.0.1"
remote-control:
  control-enable: no
`

const nsdConf = `server:
  ip-address: 127.0.0.1@%PORT%
  username: ""
  pidfile: ""
  database: ""
  zonesdir: "%DIR%"
  xfrdfile: ""
  zonelistfile: "%DIR%/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "example.test"
  zonefile: "example.zone"
`

const zone = "$ORIGIN example.test.\n@ 60 IN SOA ns a 1 60 60 60 60\n@ 60 IN NS ns\nns 60 IN A 127.0.0.1\nwww 60 IN A 127.0.0.1\n"

// pythonUDP and nodeUDP end at SIGTERM as anybody's do: with a close.
const pythonUDP = `import os, signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(os.environ["PORT"])))
def stop(*a):
    s.close()
    raise SystemExit
signal.signal(signal.SIGTERM, stop)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data, peer)
`

const nodeUDP = `const s = require('dgram').createSocket('udp4')
s.on('message', (m, from) => s.send(m, from.port, from.address))
process.on('SIGTERM', () => s.close())
s.bind(Number(process.env.PORT), '127.0.0.1')
`

var udpRows = []row{
	{kind: udp, name: "dnsmasq", needs: []string{"dnsmasq"}, from: []string{"apt:dnsmasq-base"}, asks: dnsQuery,
		args: []string{"dnsmasq", "-k", "-p", "%PORT%", "-a", "127.0.0.1", "-z", "-C", "/dev/null", "-R", "-h", "-u", "root", "-x", "", "--address=/example.test/127.0.0.1"}},
	{kind: udp, name: "unbound", needs: []string{"unbound"}, from: []string{"apt:unbound"}, asks: dnsQuery, files: map[string]string{"unbound.conf": unboundConf}, args: []string{"unbound", "-d", "-c", "%DIR%/unbound.conf"}},
	{kind: udp, name: "CoreDNS", needs: []string{"coredns"}, from: []string{"go:github.com/coredns/coredns@v1.11.3"}, asks: dnsQuery, files: map[string]string{"Corefile": ".:%PORT% {\n bind 127.0.0.1\n hosts {\n  127.0.0.1 www.example.test\n }\n}\n"}, args: []string{"coredns", "-conf", "Corefile"}},
	{kind: udp, name: "NSD", needs: []string{"nsd"}, from: []string{"apt:nsd"}, asks: dnsQuery, files: map[string]string{"nsd.conf": nsdConf, "example.zone": zone}, args: []string{"nsd", "-d", "-c", "%DIR%/nsd.conf"}},
	{kind: udp, name: "Python", needs: []string{"python3"}, asks: datagram, files: map[string]string{"dgram.py": pythonUDP}, args: []string{"python3", "dgram.py"}},
	{kind: udp, name: "Node", needs: []string{"node"}, asks: datagram, files: map[string]string{"dgram.js": nodeUDP}, flags: []string{"--contract", "bind"}, args: []string{"node", "dgram.js"}},
	{kind: udp, name: "socat", needs: []string{"socat"}, from: []string{"apt:socat"}, asks: datagram, args: []string{"socat", "UDP-RECVFROM:%PORT%,bind=127.0.0.1,fork", "EXEC:cat"}},
}

var datagram = lineOf("udp", "hello\n", "hello\n")
