package programs

const serverXML = `<Server port="-1"><Service name="Catalina"><Connector port="%PORT%" address="127.0.0.1" protocol="HTTP/1.1" bindOnInit="false"/>
<Engine name="Catalina" defaultHost="localhost"><Host name="localhost" appBase="webapps"/></Engine></Service></Server>
`

const jettyServer = `import org.eclipse.jetty.server.*;
import org.eclipse.jetty.server.handler.*;
import javax.servlet.http.*;
import java.io.IOException;
public class JettyAny {
    public static void main(String[] args) throws Exception {
        Server s = new Server();
        ServerConnector c = new ServerConnector(s);
        c.setHost("127.0.0.1");
        c.setPort(Integer.parseInt(System.getenv("PORT")));
        s.addConnector(c);
        StatisticsHandler h = new StatisticsHandler();
        h.setHandler(new AbstractHandler() {
            public void handle(String t, Request base, HttpServletRequest q, HttpServletResponse r) throws IOException {
                r.getOutputStream().print("ok\n");
                base.setHandled(true);
            }
        });
        s.setHandler(h);
        s.setStopTimeout(10000);
        s.setStopAtShutdown(true);
        s.start();
        s.join();
    }
}
`

// rustFiles is an HTTP server of hyper and tokio, from Debian's crates.
var rustFiles = map[string]string{
	"rust/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"debian\"\n[source.debian]\ndirectory = \"/usr/share/cargo/registry\"\n",
	"rust/Cargo.toml":         "[package]\nname = \"rustserver\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nhyper = { version = \"0.14\", features = [\"server\", \"http1\", \"tcp\"] }\ntokio = { version = \"1\", features = [\"rt-multi-thread\", \"signal\", \"net\"] }\n",
	"rust/src/main.rs": `use hyper::{service::{make_service_fn, service_fn}, Body, Response, Server};
fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let addr = format!("127.0.0.1:{}", std::env::var("PORT").unwrap()).parse().unwrap();
        let ok = make_service_fn(|_| async { Ok::<_, hyper::Error>(service_fn(|req| async { hyper::body::to_bytes(req.into_body()).await?; Ok::<_, hyper::Error>(Response::new(Body::from("ok\n"))) })) });
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        Server::bind(&addr).serve(ok).with_graceful_shutdown(async move { term.recv().await; }).await.unwrap();
    });
}
`,
}

const xinetdConf = `defaults
{
  log_type = FILE %DIR%/xinetd.log
  instances = UNLIMITED
  cps = 100000 1
  per_source = UNLIMITED
}
service any
{
  type = UNLISTED
  port = %PORT%
  bind = 127.0.0.1
  socket_type = stream
  protocol = tcp
  wait = no
  user = root
  server = /bin/cat
}
`

// ping is Redis's, version memcached's, hello an echo's.
var (
	ping    = lineOf("tcp", "PING\r\n", "+PONG\r\n")
	version = lineOf("tcp", "version\r\n", "VERSION")
	hello   = lineOf("tcp", "hello\n", "hello\n")
)

// pgbouncerConf has one database, its own console, which needs no PostgreSQL.
const pgbouncerConf = `[databases]
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %PORT%
unix_socket_dir =
so_reuseport = 1
auth_type = any
admin_users = any
user = nobody
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`

// alone is for a program of which only one may run.
var alone = []string{"-n", "1", "--overlap", "none"}

var otherRows = []row{
	{kind: tcp, name: "Go, Shutdown", needs: []string{"go"}, pkg: "goserver", args: []string{"%DIR%/program"}},
	{kind: tcp, name: "Go, the SDK", needs: []string{"go"}, pkg: "gosdk", args: []string{"%DIR%/program"}, flags: []string{"--keepalive-linger", "1s"}, short: true},
	{kind: tcp, name: "Rust, hyper", needs: []string{"cargo", "%CACHE%/rust/target/release/rustserver"}, from: []string{"apt:librust-hyper-dev", "apt:librust-tokio-dev"},
		files: rustFiles, build: []string{"sh", "-c", "cd %CACHE%/rust && nice cargo build --offline --release"}, args: []string{"%CACHE%/rust/target/release/rustserver"}},
	{kind: tcp, name: "Java HttpServer", needs: []string{"java"}, from: []string{"apt:default-jdk-headless"}, args: []string{"java", "Server.java"}, slow: true},
	{kind: tcp, name: "Tomcat", note: "`bindOnInit=\"false\"`: else it listens long before it accepts", needs: []string{"java", "/usr/share/tomcat10/bin/catalina.sh"}, from: []string{"apt:tomcat10"}, slow: true,
		files: map[string]string{"tomcat/conf/server.xml": serverXML, "tomcat/webapps/ROOT/index.html": "ok\n", "tomcat/webapps/ROOT/WEB-INF/web.xml": "<web-app><welcome-file-list><welcome-file>index.html</welcome-file></welcome-file-list><servlet><servlet-name>default</servlet-name><servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class></servlet><servlet-mapping><servlet-name>default</servlet-name><url-pattern>/</url-pattern></servlet-mapping></web-app>\n", "tomcat/temp/x": "", "tomcat/logs/x": "", "tomcat/work/x": ""},
		env:   []string{"CATALINA_BASE=%DIR%/tomcat", "CATALINA_HOME=/usr/share/tomcat10"}, args: []string{"/usr/share/tomcat10/bin/catalina.sh", "run"}},
	{kind: tcp, name: "Jetty", needs: []string{"java", "/usr/share/jetty9/lib/jetty-server-*.jar"}, from: []string{"apt:jetty9"}, slow: true,
		files: map[string]string{"JettyAny.java": jettyServer}, args: []string{"java", "-Dorg.eclipse.jetty.LEVEL=WARN", "-cp", "/usr/share/jetty9/lib/*", "JettyAny.java"}},
	{kind: tcp, name: "websocketd", needs: []string{"websocketd"}, from: []string{"apt:websocketd"}, args: []string{"websocketd", "--loglevel=fatal", "--address=127.0.0.1", "--port=%PORT%", "cat"}, asks: websocketEcho},
	{kind: tcp, name: "websocketd, its HTTP", needs: []string{"websocketd"}, from: []string{"apt:websocketd"}, args: []string{"websocketd", "--loglevel=fatal", "--address=127.0.0.1", "--port=%PORT%", "--staticdir=%DIR%", "cat"}},
	{kind: tcp, name: "socat, fork", needs: []string{"socat"}, from: []string{"apt:socat"}, args: []string{"socat", "TCP-LISTEN:%PORT%,bind=127.0.0.1,fork,backlog=128,reuseaddr", "EXEC:cat"}, asks: hello},
	{kind: tcp, name: "tcpserver", needs: []string{"tcpserver"}, from: []string{"apt:ucspi-tcp"}, args: []string{"tcpserver", "-HR", "-l", "0", "-c", "100", "127.0.0.1", "%PORT%", "cat"}, asks: hello},
	{kind: tcp, name: "xinetd", needs: []string{"xinetd"}, from: []string{"apt:xinetd"}, files: map[string]string{"xinetd.conf": xinetdConf}, args: []string{"xinetd", "-dontfork", "-f", "xinetd.conf", "-pidfile", "%DIR%/x.pid"}, asks: hello},
	{kind: tcp, name: "memcached", needs: []string{"memcached"}, from: []string{"apt:memcached"}, args: []string{"memcached", "-u", "root", "-l", "127.0.0.1", "-p", "%PORT%", "-U", "0", "-m", "16"}, asks: version, note: "each worker has its own data"},
	{kind: tcp, name: "pgbouncer", needs: []string{"pgbouncer"}, from: []string{"apt:pgbouncer"}, files: map[string]string{"pgbouncer.ini": pgbouncerConf}, args: []string{"pgbouncer", "pgbouncer.ini"}, asks: postgres, drain: "INT", flags: []string{"--drain-signal", "INT"}},
	{kind: tcp, name: "Redis", needs: []string{"redis-server"}, from: []string{"apt:redis-server"}, args: []string{"redis-server", "--bind", "127.0.0.1", "--port", "%PORT%", "--save", "", "--loglevel", "warning"}, asks: ping, flags: alone},
}
