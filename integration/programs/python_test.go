package programs

// Debian's Python has the packages: another one on the PATH may not.
const python = "/usr/bin/python3"

const django = `import sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=True, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="site1", LOGGING_CONFIG=None)
urlpatterns = [path("", lambda request: HttpResponse("ok\n" if request.body is not None else ""))]
if __name__ == "__main__":
    sys.modules["site1"] = sys.modules["__main__"]
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
`

const grpcPython = `import os, signal
from concurrent import futures
import grpc
class Any(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/any.Any/Call":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Any(),))
if server.add_insecure_port("127.0.0.1:" + os.environ["PORT"]) == 0: raise SystemExit("no port")
signal.signal(signal.SIGTERM, lambda *a: server.stop(10))
server.start()
server.wait_for_termination()
`

const aiohttpApp = `import os
from aiohttp import web
async def ok(request):
    await request.read()
    return web.Response(text="ok\n")
app = web.Application()
app.router.add_route("*", "/", ok)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)
`

const tornadoApp = `import asyncio, os, signal, tornado.web
class H(tornado.web.RequestHandler):
    def get(self): self.write("ok\n")
    post = get
async def main():
    server = tornado.web.Application([("/", H)]).listen(int(os.environ["PORT"]), "127.0.0.1")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    await server.close_all_connections()
import logging; logging.disable(logging.INFO)
asyncio.run(main())
`

var pythonRows = []row{
	{kind: tcp, name: "python http.server", needs: []string{"python3"}, from: []string{"apt:python3"}, args: []string{"python3", "-m", "http.server", "%PORT%", "--bind", "127.0.0.1"},
		limit: "it has no handler for SIGTERM, which ends it in the middle of a request", getOnly: true},
	{kind: tcp, name: "gunicorn sync", needs: []string{"gunicorn"}, from: []string{"apt:gunicorn"}, args: []string{"gunicorn", "-b", "127.0.0.1:%PORT%", "app:app"}, short: true},
	{kind: tcp, name: "gunicorn gthread", needs: []string{"gunicorn"}, from: []string{"apt:gunicorn"}, args: []string{"gunicorn", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:%PORT%", "app:app"}},
	{kind: tcp, name: "gunicorn gevent", needs: []string{"gunicorn", "/usr/lib/python3/dist-packages/gevent"}, from: []string{"apt:gunicorn", "apt:python3-gevent"}, args: []string{"gunicorn", "-k", "gevent", "-b", "127.0.0.1:%PORT%", "app:app"}},
	{kind: tcp, name: "uvicorn", needs: []string{"uvicorn"}, from: []string{"apt:uvicorn"}, args: []string{"uvicorn", "--log-level", "warning", "--port", "%PORT%", "app:asgi"}},
	{kind: tcp, name: "uvicorn, uvloop", needs: []string{"uvicorn", "/usr/lib/python3/dist-packages/uvloop"}, from: []string{"apt:uvicorn", "apt:python3-uvloop", "apt:python3-httptools"},
		args: []string{"uvicorn", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools", "--port", "%PORT%", "app:asgi"}},
	{kind: tcp, name: "uvicorn --fd 3", needs: []string{"uvicorn"}, from: []string{"apt:uvicorn"}, flags: []string{"--listen", "127.0.0.1:%PORT%"}, args: []string{"uvicorn", "--log-level", "warning", "--fd", "3", "app:asgi"}},
	{kind: tcp, name: "hypercorn", needs: []string{"hypercorn"}, from: []string{"apt:python3-hypercorn"}, args: []string{"hypercorn", "-b", "127.0.0.1:%PORT%", "app:asgi"}},
	{kind: tcp, name: "waitress", needs: []string{"waitress-serve"}, from: []string{"apt:python3-waitress"}, args: []string{"waitress-serve", "--listen=127.0.0.1:%PORT%", "app:app"}, drain: "INT"},
	{kind: tcp, name: "daphne", needs: []string{"daphne"}, from: []string{"apt:daphne"}, args: []string{"daphne", "-b", "127.0.0.1", "-p", "%PORT%", "-v", "0", "app:asgi"}},
	{kind: tcp, name: "Django runserver", needs: []string{"/usr/lib/python3/dist-packages/django"}, from: []string{"apt:python3-django"}, files: map[string]string{"site1.py": django},
		args: []string{python, "site1.py", "runserver", "--noreload", "127.0.0.1:%PORT%"}},
	{kind: tcp, name: "Flask", needs: []string{"/usr/lib/python3/dist-packages/flask"}, from: []string{"apt:python3-flask"},
		files: map[string]string{"hello.py": "import logging; logging.disable(logging.CRITICAL)\nfrom flask import Flask, request\napp = Flask(__name__)\n@app.route('/', methods=['GET', 'POST'])\ndef ok():\n  request.get_data()\n  return 'ok\\n'\n"},
		args:  []string{python, "-m", "flask", "--app", "hello", "run", "-h", "127.0.0.1", "-p", "%PORT%"}},
	{kind: tcp, name: "aiohttp", needs: []string{"/usr/lib/python3/dist-packages/aiohttp"}, from: []string{"apt:python3-aiohttp"}, files: map[string]string{"aio.py": aiohttpApp}, args: []string{python, "aio.py"}},
	{kind: tcp, name: "Tornado", needs: []string{"/usr/lib/python3/dist-packages/tornado"}, from: []string{"apt:python3-tornado"}, files: map[string]string{"torn.py": tornadoApp}, args: []string{python, "torn.py"}},
	{kind: tcp, name: "gRPC, Python", needs: []string{"/usr/lib/python3/dist-packages/grpc"}, from: []string{"apt:python3-grpcio"}, files: map[string]string{"rpc.py": grpcPython}, args: []string{python, "rpc.py"}, asks: grpcUnary,
		limit: "it shuts its listener down, as webrick does"},
}
