package programs

const railsApp = `require "action_controller/railtie"
class Site < Rails::Application
  config.eager_load = false
  config.secret_key_base = "x" * 64
  config.hosts.clear
  config.logger = Logger.new(nil)
  config.consider_all_requests_local = true
  routes.append { match "/", via: :all, to: ->(env) { env["rack.input"]&.read; [200, { "Content-Type" => "text/plain" }, ["ok\n"]] } }
end
Site.initialize!
run Site
`

var rubyRows = []row{
	{kind: tcp, name: "puma", needs: []string{"puma"}, from: []string{"apt:puma"}, args: []string{"puma", "-q", "-t", "36:36", "-b", "tcp://127.0.0.1:%PORT%", "config.ru"}},
	{kind: tcp, name: "puma, cluster of 2", needs: []string{"puma"}, from: []string{"apt:puma"}, args: []string{"puma", "-q", "-t", "36:36", "-w", "2", "-b", "tcp://127.0.0.1:%PORT%", "config.ru"}},
	{kind: tcp, name: "unicorn", needs: []string{"unicorn"}, from: []string{"apt:unicorn"}, args: []string{"unicorn", "-l", "127.0.0.1:%PORT%", "config.ru"}, drain: "QUIT"},
	{kind: tcp, name: "webrick", needs: []string{"ruby", "/usr/share/rubygems-integration/*/specifications/webrick*"}, from: []string{"apt:ruby", "apt:ruby-webrick"}, args: []string{"ruby", "-run", "-e", "httpd", ".", "-p", "%PORT%", "-b", "127.0.0.1"},
		limit: "it closes unread what it has accepted around the signal, and shuts its listener down", getOnly: true},
	{kind: tcp, name: "thin", needs: []string{"thin"}, from: []string{"apt:thin"}, args: []string{"thin", "start", "-q", "-a", "127.0.0.1", "-p", "%PORT%", "-R", "config.ru"}, drain: "QUIT"},
	{kind: tcp, name: "Rails, on puma", needs: []string{"puma", "/usr/share/rubygems-integration/all/specifications/railties*"}, from: []string{"apt:puma", "apt:ruby-railties", "apt:ruby-actionpack"},
		files: map[string]string{"config.ru": railsApp}, args: []string{"puma", "-q", "-t", "36:36", "-b", "tcp://127.0.0.1:%PORT%", "config.ru"}, slow: true},
}

// uwsgiHooks are what handoff sets: without them INT ends uWSGI at once.
var uwsgiHooks = []string{"UWSGI_HOOK_MASTER_START=unix_signal:2 gracefully_kill_them_all", "UWSGI_HOOK_ACCEPTING1=unix_signal:2 gracefully_kill"}

const fpmConf = "[global]\nerror_log = %DIR%/fpm.log\nprocess_control_timeout = 9s\ndaemonize = no\n" +
	"[www]\nuser = root\ngroup = root\npm = static\npm.max_children = 36\n"

var phpRows = []row{
	{kind: tcp, name: "php-fpm", needs: []string{"php-fpm8.2", "nginx"}, from: []string{"apt:php8.2-fpm"}, files: map[string]string{"fpm.conf": fpmConf + "listen = 127.0.0.1:%PORT%\n"}, args: []string{"php-fpm8.2", "-R", "-F", "-y", "%DIR%/fpm.conf"}, behind: "fastcgi"},
	{kind: tcp, name: "php -S", needs: []string{"php"}, from: []string{"apt:php-cli"}, args: []string{"php", "-S", "127.0.0.1:%PORT%", "index.php"}},
	{kind: tcp, name: "Mojolicious daemon", needs: []string{"morbo"}, from: []string{"apt:libmojolicious-perl"}, files: map[string]string{"app.pl": mojolicious},
		args: []string{"perl", "app.pl", "daemon", "-m", "production", "-l", "http://127.0.0.1:%PORT%"}, drain: "QUIT", flags: []string{"--drain-signal", "QUIT"}, note: "TERM drops the requests that it has"},
	{kind: tcp, name: "starman", needs: []string{"starman"}, from: []string{"apt:starman"}, files: map[string]string{"app.psgi": psgi}, args: []string{"starman", "--workers", "20", "--listen", "127.0.0.1:%PORT%", "app.psgi"}, drain: "QUIT", flags: []string{"--drain-signal", "QUIT"}},
	{kind: tcp, name: "starlet", needs: []string{"plackup", "/usr/share/perl5/Plack/Handler/Starlet.pm"}, from: []string{"apt:starlet"}, files: map[string]string{"app.psgi": psgi}, args: []string{"plackup", "-s", "Starlet", "--max-workers", "20", "--host", "127.0.0.1", "--port", "%PORT%", "app.psgi"}},
	{kind: tcp, name: "uWSGI --http-socket", needs: []string{"uwsgi", "/usr/lib/uwsgi/plugins/python3*"}, from: []string{"apt:uwsgi-core", "apt:uwsgi-plugin-python3"}, drain: "INT", bare: uwsgiHooks,
		args: []string{"uwsgi", "--plugin", "python3", "--master", "--disable-logging", "--http-socket", "127.0.0.1:%PORT%", "--module", "app:app"}},
	{kind: tcp, name: "uWSGI --http", needs: []string{"uwsgi", "/usr/lib/uwsgi/plugins/python3*", "/usr/lib/uwsgi/plugins/http_*"}, from: []string{"apt:uwsgi-core", "apt:uwsgi-plugin-python3"}, drain: "INT", bare: uwsgiHooks,
		args: []string{"uwsgi", "--plugin", "python3,http", "--master", "--disable-logging", "--http", "127.0.0.1:%PORT%", "--module", "app:app"}},
}

const mojolicious = "use Mojolicious::Lite -signatures;\nany '/' => sub ($c) { $c->render(text => \"ok\\n\") };\napp->log->level('fatal');\napp->start;\n"

const psgi = `sub { [200, ["Content-Type", "text/plain", "Content-Length", 3], ["ok\n"]] }` + "\n"

const haproxyConf = `global
  log stderr local0 emerg
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend f
  bind 127.0.0.1:%PORT%
  http-request return status 200 content-type text/plain string ok
`

const apacheConf = `ServerRoot %DIR%
PidFile %DIR%/apache-${HANDOFF_WORKER}.pid
Listen 127.0.0.1:%PORT%
ServerName x
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
ErrorLog %DIR%/apache.log
DocumentRoot %DIR%
DirectoryIndex index.html
User www-data
Group www-data
`

const varnishVCL = `vcl 4.1;
backend none { .host = "127.0.0.1"; .port = "9"; }
sub vcl_recv { return (synth(200, "OK")); }
`

const h2oConf = `listen: { host: 127.0.0.1, port: %PORT% }
user: root
num-threads: 2
hosts: { default: { paths: { /: { file.dir: %DIR% } } } }
error-log: %DIR%/h2o.log
`

const caddyFile = "{\n admin off\n auto_https off\n}\nhttp://127.0.0.1:%PORT% {\n respond \"ok\"\n}\n"

var proxyRows = []row{
	{kind: tcp, name: "nginx", needs: []string{"nginx"}, from: []string{"apt:nginx-light"}, args: []string{"nginx", "-p", ".", "-c", "nginx.conf"}, drain: "QUIT", short: true,
		files: map[string]string{"nginx.conf": "daemon off; worker_processes 1; pid nginx-%PORT%.pid; error_log stderr warn; events {}\n" +
			"http { access_log off; server { listen 127.0.0.1:%PORT%; location / { return 200 \"ok\\n\"; } } }\n"}},
	{kind: tcp, name: "HAProxy", needs: []string{"haproxy"}, from: []string{"apt:haproxy"}, files: map[string]string{"haproxy.cfg": haproxyConf}, args: []string{"haproxy", "-db", "-f", "haproxy.cfg"}, drain: "USR1", flags: []string{"--drain-signal", "USR1"}},
	{kind: tcp, name: "HAProxy, master-worker", needs: []string{"haproxy"}, from: []string{"apt:haproxy"}, files: map[string]string{"haproxy.cfg": haproxyConf}, args: []string{"haproxy", "-W", "-f", "haproxy.cfg"}, drain: "USR1", flags: []string{"--drain-signal", "USR1"}},
	{kind: tcp, name: "Apache, event", needs: []string{"apache2"}, from: []string{"apt:apache2-bin"}, files: map[string]string{"apache.conf": apacheConf}, args: []string{"apache2", "-DFOREGROUND", "-f", "%DIR%/apache.conf"}, drain: "WINCH"},
	{kind: tcp, name: "caddy", needs: []string{"caddy"}, from: []string{"apt:caddy"}, files: map[string]string{"Caddyfile": caddyFile}, args: []string{"caddy", "run", "--config", "Caddyfile"}},
	{kind: tcp, name: "varnish", needs: []string{"varnishd", "gcc"}, from: []string{"apt:varnish"}, files: map[string]string{"v.vcl": varnishVCL},
		args: []string{"sh", "-c", "exec varnishd -F -n %DIR%/v$HANDOFF_WORKER -a 127.0.0.1:%PORT% -f %DIR%/v.vcl -s malloc,10m"}, slow: true},
	{kind: tcp, name: "h2o", needs: []string{"h2o"}, from: []string{"apt:h2o"}, files: map[string]string{"h2o.yaml": h2oConf}, args: []string{"h2o", "-c", "h2o.yaml"}, getOnly: true},
	{kind: tcp, name: "lighttpd", needs: []string{"lighttpd"}, from: []string{"apt:lighttpd"}, args: []string{"lighttpd", "-D", "-f", "lighttpd.conf"}, drain: "INT",
		files: map[string]string{"lighttpd.conf": "server.document-root = \"%DIR%\"\nserver.bind = \"127.0.0.1\"\nserver.port = %PORT%\nindex-file.names = (\"index.html\")\n"}},
	{kind: tcp, name: "busybox httpd", needs: []string{"busybox"}, from: []string{"apt:busybox"}, args: []string{"busybox", "httpd", "-f", "-p", "127.0.0.1:%PORT%", "-h", "."}, getOnly: true},
	{kind: tcp, name: "mini-httpd", needs: []string{"mini_httpd"}, from: []string{"apt:mini-httpd"}, args: []string{"mini_httpd", "-D", "-h", "127.0.0.1", "-p", "%PORT%", "-d", "%DIR%", "-u", "root"}, getOnly: true},
}
