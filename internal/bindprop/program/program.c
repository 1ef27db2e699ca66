// The program of the property test. It performs scripts of socket calls, and says what
// each call returned. Nothing is between it and the kernel: no runtime, no library that
// would retry or hide anything.
//
//	program netns COMMAND...         runs it in a network namespace of its own
//	program in PID COMMAND...        runs it in the network namespace of a process
//	program runner CONTROL NAME      forks a leader for each script, as CONTROL (a unix socket) says
//	program again K                  what an exec step executes
//
// A leader, and what its script forks, are processes 0 to 3. They share one piece of
// memory (a memfd, which an exec keeps): the script, the output so far, and what both
// need to know. One of them runs at a time: who has got a byte on its pair.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	CONTROL = 200, // a leader's connection to the test
	MEMORY = 205,
	ASK = 210,     // + K: the leader's end of a process's pair
	REPLY = 220,   // + K: its own end
	MAXPROC = 4,
	MAXFD = 64,    // a script's descriptors are below
};

struct shared {
	int pid[MAXPROC], parent[MAXPROC]; // 0: there is none
	char dir[200], held[4096];
	int base, step;
	unsigned long devices[64]; // inodes of sockets that were bound to a device when they first listened
	int ndevices;
	int ports[256], nports; // that the kernel chose, in the order in which they were seen
	int textlen, at, outlen;
	char line[512];         // the step that is performed
	char text[1 << 17], out[1 << 21];
};
static struct shared *sh;
static int me; // which of the processes. Its descriptors from 100 on are connections of probes
static int probing = -1;

static void say(const char *f, ...) {
	va_list l;
	va_start(l, f);
	int n = vsnprintf(sh->out + sh->outlen, sizeof sh->out - sh->outlen, f, l);
	va_end(l);
	if (n > 0 && sh->outlen + n < (int)sizeof sh->out) sh->outlen += n;
}

static const char *err(int e) {
	const char *n = strerrorname_np(e);
	return n ? n : "E?";
}

static void result(int n) {
	if (n < 0) say("%s", err(errno));
	else say("%d", n);
}

static void port(int p) {
	if (p == 0 || p < 1024) { say("%d", p); return; }
	if (p >= sh->base && p < sh->base + 8) { say("p%d", p - sh->base); return; }
	int i = 0;
	while (i < sh->nports && sh->ports[i] != p) i++;
	if (i == sh->nports && i < 255) sh->ports[sh->nports++] = p;
	say("e%d", i);
}

// sayaddr says an address as it is written in scripts.
static void sayaddr(struct sockaddr_storage *s, socklen_t len) {
	char b[200];
	if (len < 2) { say("none"); return; }
	switch (s->ss_family) {
	case AF_INET: {
		struct sockaddr_in *a = (void *)s;
		say("4/%s/", inet_ntop(AF_INET, &a->sin_addr, b, sizeof b));
		port(ntohs(a->sin_port));
		return;
	}
	case AF_INET6: {
		struct sockaddr_in6 *a = (void *)s;
		say("6/%s/", inet_ntop(AF_INET6, &a->sin6_addr, b, sizeof b));
		port(ntohs(a->sin6_port));
		return;
	}
	case AF_UNIX: {
		struct sockaddr_un *a = (void *)s;
		int n = len - 2;
		size_t d = strlen(sh->dir);
		if (n <= 0) { say("n/"); return; }
		if (a->sun_path[0]) {
			char path[120] = {0};
			memcpy(path, a->sun_path, n < 108 ? n : 108);
			if (!strncmp(path, sh->dir, d)) say("U%s", path + d);
			else say("u/%s", path);
			return;
		}
		int id = 0, off = 0;
		if (n > 6 && sscanf(a->sun_path + 1, "%d-%n", &id, &off) == 1 && off > 0 && id == sh->base) say("@/%.*s", n - 1 - off, a->sun_path + 1 + off);
		else say("@auto");
		return;
	}
	}
	say("family %d", s->ss_family);
}

static const char *pathof(const char *t, char *b) { // "u/…" or "U/…"
	if (t[0] == 'U') snprintf(b, 400, "%s%s", sh->dir, t + 1);
	else snprintf(b, 400, "%s", t + 2);
	return b;
}

static socklen_t addrof(const char *t, struct sockaddr_storage *s) {
	memset(s, 0, sizeof *s);
	char host[100], p[20], b[400];
	if ((t[0] == '4' || t[0] == '6') && sscanf(t + 2, "%99[^/]/%19s", host, p) == 2) {
		int n = p[0] == 'p' ? sh->base + atoi(p + 1) : p[0] == 'e' ? sh->ports[atoi(p + 1) & 255] : atoi(p);
		if (t[0] == '4') {
			struct sockaddr_in *a = (void *)s;
			a->sin_family = AF_INET, a->sin_port = htons(n);
			inet_pton(AF_INET, host, &a->sin_addr);
			return sizeof *a;
		}
		struct sockaddr_in6 *a = (void *)s;
		a->sin6_family = AF_INET6, a->sin6_port = htons(n);
		inet_pton(AF_INET6, host, &a->sin6_addr);
		return sizeof *a;
	}
	struct sockaddr_un *a = (void *)s;
	a->sun_family = AF_UNIX;
	switch (t[0]) {
	case 'u': case 'U':
		pathof(t, b);
		if (strlen(b) > 107) { memset(a->sun_path, 'x', 108); return 2 + 109; }
		strcpy(a->sun_path, b);
		return 2 + strlen(b) + 1;
	case '@':
		return 2 + 1 + sprintf(a->sun_path + 1, "%d-%s", sh->base, t + 2);
	case 'n':
		return 2;
	}
	a->sun_family = AF_UNSPEC;
	return 16;
}

#include "options.h"

static int intopt(int fd, int level, int name) {
	int v = -1;
	socklen_t n = sizeof v;
	if (getsockopt(fd, level, name, &v, &n)) return -1;
	return v;
}

static void look(int fd) {
	struct stat st;
	if (fstat(fd, &st)) return;
	say("look p%d f%d = ", me, fd);
	say("mode:%o fd:%d fl:%o", st.st_mode, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
	if (!S_ISSOCK(st.st_mode)) { say("\n"); return; }
	struct sockaddr_storage s;
	socklen_t n = sizeof s;
	memset(&s, 0, sizeof s);
	say(" sockname:");
	if (getsockname(fd, (void *)&s, &n)) say("%s", err(errno));
	else sayaddr(&s, n);
	n = sizeof s;
	int connected = !getpeername(fd, (void *)&s, &n);
	say(" peername:%s", connected ? "yes" : err(errno));
	struct tcp_info info;
	n = sizeof info;
	int ip = !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n);
	if (ip) {
		connected |= info.tcpi_state != TCP_CLOSE && info.tcpi_state != TCP_LISTEN;
		say(" state:%s", info.tcpi_state == TCP_CLOSE ? "closed" : info.tcpi_state == TCP_LISTEN ? "listens" : "connected");
	}
	struct ucred cred;
	n = sizeof cred;
	if (intopt(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n)) {
		int k = 0;
		while (k < MAXPROC && (cred.pid == 0 || sh->pid[k] != cred.pid)) k++;
		say(" peercred:%s,%d", cred.pid == 0 ? "none" : k == MAXPROC ? "foreign" : "own", (int)cred.uid);
	}
	for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
		if (connected && options[i].volatile_) continue;
		sayoption(fd, i);
	}
	say("\n");
}

// connecting connects without waiting for longer than two seconds.
static int connecting(int fd, struct sockaddr_storage *s, socklen_t n) {
	int fl = fcntl(fd, F_GETFL);
	if (fl >= 0) fcntl(fd, F_SETFL, fl | O_NONBLOCK);
	int r = connect(fd, (void *)s, n), e = errno;
	if (r < 0 && e == EINPROGRESS) {
		struct pollfd p = {fd, POLLOUT, 0};
		socklen_t len = sizeof e;
		if (poll(&p, 1, 2000) == 0) e = ETIMEDOUT;
		else getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
		r = e ? -1 : 0;
	}
	if (fl >= 0) fcntl(fd, F_SETFL, fl);
	errno = e;
	return r;
}

static int up(int fd) { // out of the way of the script's descriptors
	int n = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	close(fd);
	return n;
}

static void drop(void) {
	close_range(100, CONTROL - 1, 0);
	probing = -1;
}


// identity is a file's inode with the time of its birth: inodes are used again.
static int identity(const char *path, char *key) {
	struct statx st;
	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_TYPE | STATX_BTIME, &st) || !S_ISSOCK(st.stx_mode)) return 0;
	return snprintf(key, 60, " %llu.%lld.%u ", (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
}

// A bind over the file of a socket that the other run's first generation listens on: a
// held one, of which that file is the address. Here it is gone, so the file is in the way.
static int bindheld(int fd, struct sockaddr_storage *s, socklen_t n) {
	int r = bind(fd, (void *)s, n);
	struct sockaddr_un *a = (void *)s;
	if (r == 0 || errno != EADDRINUSE || a->sun_family != AF_UNIX || !a->sun_path[0]) return r;
	char key[60];
	if (identity(a->sun_path, key) && strstr(sh->held, key)) {
		unlink(a->sun_path);
		return bind(fd, (void *)s, n);
	}
	errno = EADDRINUSE;
	return r;
}

// take accepts the connection (by the port or pid of its peer) or the datagram of a probe.
static void take(const char *kind, unsigned who) {
	for (int fd = 3; fd < MAXFD; fd++) {
		int type = intopt(fd, SOL_SOCKET, SO_TYPE);
		if (type < 0) continue;
		if (kind[0] == 'u' && type == SOCK_DGRAM) { // a datagram
			unsigned token;
			while (recv(fd, &token, sizeof token, MSG_DONTWAIT) == sizeof token)
				if (token == who) { say("by p%d f%d", me, fd); return; }
		}
		if (kind[0] == 'u' || intopt(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1) continue;
		for (;;) {
			struct pollfd p = {fd, POLLIN, 0};
			struct sockaddr_storage s;
			socklen_t n = sizeof s;
			memset(&s, 0, sizeof s);
			if (poll(&p, 1, 0) != 1) break;
			int c = accept4(fd, (void *)&s, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
			if (c < 0) break;
			c = up(c);
			struct ucred cred = {0};
			n = sizeof cred;
			unsigned peer = s.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&s)->sin_port) : ntohs(((struct sockaddr_in6 *)&s)->sin6_port);
			if (s.ss_family == AF_UNIX || s.ss_family == 0) getsockopt(c, SOL_SOCKET, SO_PEERCRED, &cred, &n), peer = cred.pid;
			if (peer == who) { say("by p%d f%d", me, fd); return; }
		}
	}
}

static void probe(const char *kind, const char *addr, unsigned token) {
	struct sockaddr_storage s;
	socklen_t n = addrof(addr, &s);
	int type = !strcmp(kind, "udp") || !strcmp(kind, "dgram") ? SOCK_DGRAM : !strcmp(kind, "seq") ? SOCK_SEQPACKET : SOCK_STREAM;
	int fd = probing = up(socket(s.ss_family, type | SOCK_CLOEXEC, 0));
	if (connecting(fd, &s, n)) { say("%s", err(errno)); return; }
	if (type == SOCK_DGRAM) {
		if (send(fd, &token, sizeof token, MSG_DONTWAIT) < 0) say("%s", err(errno));
		else say("sent %u", token);
		return;
	}
	struct sockaddr_storage own;
	socklen_t on = sizeof own;
	getsockname(fd, (void *)&own, &on);
	unsigned mine = s.ss_family == AF_UNIX ? (unsigned)getpid() : ntohs(((struct sockaddr_in *)&own)->sin_port);
	say("connected %u", mine);
}

// refused says what came back for the datagram of the last probe.
static void refused(void) {
	int e = intopt(probing, SOL_SOCKET, SO_ERROR);
	if (e > 0) say("%s", err(e));
}

static void unprobe(void) {
	struct linger l = {1, 0};
	setsockopt(probing, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	drop();
}

static void list(const char *dir) {
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char path[400];
		struct stat st;
		if (names[i]->d_name[0] == '.') continue;
		snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
		if (!lstat(path, &st)) say("ls %s = %o uid:%d links:%d\n", path, st.st_mode, st.st_uid, (int)st.st_nlink);
	}
}

// held says the identities of the files of which somebody listens on the socket.
static void held(const char *dir) {
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char path[400], key[60];
		snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
		if (!identity(path, key)) continue;
		for (int k = 0; k < 2; k++) {
			struct sockaddr_un a = {AF_UNIX, ""};
			snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
			int fd = up(socket(AF_UNIX, k ? SOCK_SEQPACKET : SOCK_STREAM, 0));
			if (!connecting(fd, (void *)&a, sizeof a)) say("%s", key);
			close(fd);
		}
	}
}

static int bytext(const void *a, const void *b) { return strcmp(a, b); }

// net says which sockets the kernel's tables show at the script's ports and paths, but for
// connections. Their order there is by chance.
static void net(void) {
	static const char *tables[] = {"tcp", "tcp6", "udp", "udp6"};
	static char rows[64][200];
	char row[500], path[300];
	int n = 0;
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "/proc/self/net/%s", tables[i]);
		FILE *f = fopen(path, "re");
		while (f && fgets(row, sizeof row, f)) {
			char host[40];
			unsigned p, state, uid;
			if (sscanf(row, "%*s %39[^:]:%x %*s %x %*s %*s %*s %u", host, &p, &state, &uid) != 4) continue;
			if ((int)p < sh->base || (int)p >= sh->base + 8 || state != (i < 2 ? 10 : 7) || n == 64) continue;
			snprintf(rows[n++], 200, "net %s %s p%d uid:%u", tables[i], host, (int)p - sh->base, uid);
		}
		if (f) fclose(f);
	}
	FILE *f = fopen("/proc/self/net/unix", "re");
	while (f && fgets(row, sizeof row, f)) {
		unsigned flags, type, state;
		int own = 0;
		if (sscanf(row, "%*s %*s %*s %x %x %x %*s %299s", &flags, &type, &state, path) != 4 || state != 1 || n == 64) continue;
		if (!strncmp(path, sh->dir, strlen(sh->dir))) own = strlen(sh->dir);
		else if (path[0] == '@' || path[0] == '/') continue;
		snprintf(rows[n++], 200, "net unix %s type:%u flags:%x", path + own, type, flags);
	}
	if (f) fclose(f);
	qsort(rows, n, sizeof rows[0], bytext);
	say("%d\n", n);
	for (int i = 0; i < n; i++) say("%s = 1\n", rows[i]);
}

static void serve(void);

static void dofork(int k) {
	int pid = fork();
	if (pid == 0) {
		me = k;
		sh->pid[k] = getpid();
		char b = 1;
		write(REPLY + me, &b, 1);
		serve();
	}
	sh->parent[k] = me;
	char b;
	read(ASK + k, &b, 1); // it is there
	say("%s\n", pid < 0 ? err(errno) : "ok");
}

static void again(void) {
	char k[10], *argv[] = {"program", "again", k, NULL};
	snprintf(k, sizeof k, "%d", me);
	if (me == 0) sh->step++;
	execv("/proc/self/exe", argv);
	_exit(9);
}

static unsigned long inodeof(int fd) {
	struct stat st;
	return fstat(fd, &st) ? 0 : st.st_ino;
}

static int listening(int fd, int backlog) {
	int first = intopt(fd, SOL_SOCKET, SO_ACCEPTCONN) == 0 && intopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX) > 0;
	int r = listen(fd, backlog);
	if (r == 0 && first && sh->ndevices < 64) sh->devices[sh->ndevices++] = inodeof(fd);
	return r;
}

// ghost leaves what a first generation has that no contract holds: bound sockets that do not
// listen, but those of which a UDP group is made, and what is bound to a device.
static void ghost(void) {
	struct linger l = {1, 0};
	for (int fd = 3; fd < MAXFD; fd++) {
		struct sockaddr_storage s;
		socklen_t n = sizeof s;
		memset(&s, 0, sizeof s);
		if (getsockname(fd, (void *)&s, &n)) continue;
		int ip = s.ss_family == AF_INET || s.ss_family == AF_INET6, tcp = intopt(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
		int bound = ip && ((struct sockaddr_in *)&s)->sin_port, device = intopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX) > 0;
		int listens = intopt(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
		if (tcp && listens) {
			device = 0;
			for (int i = 0; i < sh->ndevices; i++) device |= sh->devices[i] == inodeof(fd);
		}
		if (s.ss_family == AF_UNIX && !listens) continue; // of a path, it is in the ghost's own folder
		if (bound && tcp && (!listens || device)) continue;
		if (bound && !tcp) {
			if (device) continue;
		}
		if (tcp && !listens) setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
		close(fd);
	}
}

static void waits(int n) {
	int f = open("/proc/sys/net/ipv4/tcp_max_tw_buckets", O_WRONLY | O_CLOEXEC);
	dprintf(f, "%d", n);
	close(f);
}

static void perform(char *l) {
	char op[20] = "", a[200] = "", b[200] = "", c[200] = "", d[200] = "", p1[400], p2[400];
	sscanf(l, "%*d %19s %199s %199s %199s %199s", op, a, b, c, d);
	int fd = atoi(a);
	struct sockaddr_storage s;
	socklen_t n;
#define IS(x) (!strcmp(op, x))
	if (IS("take")) { take(a, strtoul(b, NULL, 10)); return; }
	if (IS("look")) {
		for (fd = 3; fd < MAXFD; fd++) look(fd);
		return;
	}
	if (IS("ls")) { list("."), list("d"); return; }
	if (IS("held")) { held("."), held("d"); return; }
	if (IS("probe")) { probe(a, b, strtoul(c, NULL, 10)); return; }
	if (IS("refused")) { refused(); return; }
	if (IS("unprobe")) { unprobe(); return; }
	if (IS("drop")) { drop(); return; }
	if (IS("ghost")) { ghost(); return; }
	if (IS("waits")) { waits(atoi(a)); return; }
	say("%d %s = ", sh->step, l);
	if (IS("socket")) result(socket(atoi(a), atoi(b), atoi(c)));
	else if (IS("set")) setoption(fd, b, c);
	else if (IS("get")) {
		int i = optionby(b);
		if (i >= 0) sayoption(fd, i);
	} else if (IS("bind")) n = addrof(b, &s), result(bindheld(fd, &s, n));
	else if (IS("connect")) n = addrof(b, &s), result(connecting(fd, &s, n));
	else if (IS("listen")) result(listening(fd, atoi(b)));
	else if (IS("accept")) {
		struct pollfd p = {fd, POLLIN, 0};
		if (intopt(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 && poll(&p, 1, 0) == 0) say("EAGAIN");
		else {
			int conn = accept4(fd, (void *)&s, &n, SOCK_NONBLOCK);
			result(conn);
			if (conn >= 0) close(conn);
		}
	} else if (IS("close")) result(fd < MAXFD && fd > 2 ? close(fd) : -1);
	else if (IS("dup")) result(dup(fd));
	else if (IS("dup2")) result(dup2(fd, atoi(b)));
	else if (IS("setfl")) result(fcntl(fd, F_SETFL, atoi(b)));
	else if (IS("setfd")) result(fcntl(fd, F_SETFD, atoi(b)));
	else if (IS("shutdown")) result(shutdown(fd, atoi(b)));
	else if (IS("send")) n = addrof(b, &s), result(sendto(fd, "hello", 5, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&s, n));
	else if (IS("recv")) {
		char buf[100];
		result(recv(fd, buf, sizeof buf, MSG_DONTWAIT));
	} else if (IS("unlink")) result(unlink(pathof(a, p1)));
	else if (IS("rename")) result(rename(pathof(a, p1), pathof(b, p2)));
	else if (IS("link")) result(link(pathof(a, p1), pathof(b, p2)));
	else if (IS("chmod")) result(chmod(pathof(a, p1), strtol(b, NULL, 8)));
	else if (IS("chown")) result(chown(pathof(a, p1), atoi(b), -1));
	else if (IS("net")) { net(); return; }
	else if (IS("user")) result(seteuid(atoi(a)));
	else if (IS("umask")) say("%o", umask(strtol(a, NULL, 8)));
	else if (IS("touch")) {
		int f = open(pathof(a, p1), O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (f >= 0) close(f), f = 0;
		result(f);
	} else if (IS("stat")) {
		struct stat st;
		if (lstat(pathof(a, p1), &st)) say("%s", err(errno));
		else say("%o uid:%d links:%d", st.st_mode, st.st_uid, (int)st.st_nlink);
	} else if (IS("fork")) { dofork(atoi(a)); return; }
	else if (IS("exec")) { say("ok\n"); again(); }
	else if (IS("reap")) {
		kill(sh->pid[fd], SIGKILL);
		waitpid(sh->pid[fd], NULL, 0);
		sh->pid[fd] = 0;
		say("ok");
	} else say("what?");
	say("\n");
}

// give has process k perform the line.
static void give(int k) {
	if (k == me) { perform(sh->line); return; }
	char b = 1;
	struct pollfd p = {ASK + k, POLLIN, 0};
	write(ASK + k, &b, 1);
	if (poll(&p, 1, 20000) != 1 || read(ASK + k, &b, 1) != 1) say("process %d is gone\n", k);
}

static void step(void) {
	int k = sh->line[0] - '0', other;
	char op[20];
	if (k < 0 || k >= MAXPROC || !sh->pid[k]) { say("%d %s = none\n", sh->step, sh->line); return; }
	if (sscanf(sh->line, "%*d %19s %d", op, &other) == 2 && other > 0 && other < MAXPROC) {
		if (!strcmp(op, "fork") && sh->pid[other]) { say("%d %s = busy\n", sh->step, sh->line); return; }
		if (!strcmp(op, "reap") && (!sh->pid[other] || sh->parent[other] != k)) { say("%d %s = none\n", sh->step, sh->line); return; }
	}
	if (!strcmp(op, "take") || !strcmp(op, "drop") || !strcmp(op, "ghost") || (!strcmp(op, "look") && k == 0)) { // by all
		for (k = 0; k < MAXPROC; k++) {
			int before = sh->outlen;
			if (sh->pid[k]) give(k);
			if (!strcmp(op, "take") && sh->outlen > before) return;
		}
		return;
	}
	give(k);
}

static void all(int fd, char *p, int n) {
	while (n > 0) {
		int k = write(fd, p, n);
		if (k <= 0) _exit(1);
		p += k, n -= k;
	}
}

// lead performs the rest of the text, then takes the next one: a line with the length, and
// the text.
static void lead(void) {
	for (;;) {
		while (sh->at < sh->textlen) {
			char *l = sh->text + sh->at, *e = strchr(l, '\n');
			*e = 0;
			sh->at += e - l + 1;
			snprintf(sh->line, sizeof sh->line, "%s", l);
			if (!strncmp(l, "dir ", 4)) {
				snprintf(sh->dir, sizeof sh->dir, "%s", l + 4);
				if (chdir(sh->dir)) _exit(3);
			} else if (!strncmp(l, "held ", 5)) snprintf(sh->held, sizeof sh->held, "%s", l + 4);
			else if (!strncmp(l, "base ", 5)) sh->base = atoi(l + 5);
			else step(), sh->step++;
		}
		char head[40];
		if (sh->textlen) {
			say("ports");
			for (int i = 0; i < sh->nports; i++) say(" %d", sh->ports[i]);
			all(CONTROL, head, sprintf(head, "%d\n", sh->outlen));
			all(CONTROL, sh->out, sh->outlen);
		}
		int n = 0;
		while (read(CONTROL, head + n, 1) == 1 && head[n] != '\n' && n < 20) n++;
		if (n == 0) kill(0, SIGKILL); // the test has ended: with all that was forked
		sh->at = sh->outlen = sh->step = 0;
		sh->textlen = atoi(head);
		for (int i = 0; i < sh->textlen; i += n)
			if ((n = read(CONTROL, sh->text + i, sh->textlen - i)) <= 0) _exit(0);
		sh->text[sh->textlen] = 0;
	}
}

static void serve(void) {
	if (me == 0) lead();
	char b;
	while (read(REPLY + me, &b, 1) == 1) {
		perform(sh->line);
		write(REPLY + me, &b, 1);
	}
	_exit(0);
}

static void map(void) {
	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
	if (sh == MAP_FAILED) _exit(4);
}

static void move(int fd, int to) {
	dup2(fd, to);
	close(fd);
}

// control connects by a short name and with the size of an IPv6 address: no filter of
// connect(2) to a unix socket, which nobody may answer yet, sees it.
static int control(const char *path) {
	struct sockaddr_un a = {AF_UNIX, ""};
	char dir[300];
	snprintf(dir, sizeof dir, "%s", path);
	char *name = strrchr(dir, '/');
	*name++ = 0;
	if (chdir(dir)) { perror(dir); exit(5); }
	snprintf(a.sun_path, 26, "%s", name);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (void *)&a, 28)) { perror(path); exit(5); }
	return fd;
}

static void leader(const char *path, const char *id) {
	char hello[60];
	setpgid(0, 0);
	move(control(path), CONTROL);
	int m = memfd_create("script", 0);
	ftruncate(m, sizeof(struct shared));
	move(m, MEMORY);
	map();
	for (int k = 1; k < MAXPROC; k++) {
		int p[2];
		socketpair(AF_UNIX, SOCK_STREAM, 0, p);
		move(p[0], ASK + k), move(p[1], REPLY + k);
	}
	sh->pid[0] = getpid();
	all(CONTROL, hello, sprintf(hello, "leader %s\n", id));
	serve();
}

static void runner(const char *path, const char *name) {
	int fd = control(path), c = 201;
	char line[300], id[40];
	move(fd, c);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	close_range(3, CONTROL - 1, 0);
	all(c, line, sprintf(line, "runner %s\n", name));
	for (;;) {
		int n = 0, pid;
		char p[20], host[60];
		while (read(c, line + n, 1) == 1 && line[n] != '\n' && n < 290) n++;
		if (n == 0) exit(0);
		line[n] = 0;
		if (sscanf(line, "fork %39s", id) == 1) {
			if ((pid = fork()) == 0) close(c), leader(path, id);
			setpgid(pid, pid);
			all(c, line, sprintf(line, "%d\n", pid));
		} else if (sscanf(line, "end %d", &pid) == 1) {
			kill(-pid, SIGKILL);
			while (waitpid(-pid, NULL, 0) > 0 || errno == EINTR);
			all(c, line, sprintf(line, "0\n"));
		} else if (sscanf(line, "serve %59s %19s", host, p) == 2) { // so that it is ready
			struct sockaddr_in a = {AF_INET, htons(atoi(p))};
			inet_pton(AF_INET, host, &a.sin_addr);
			fd = socket(AF_INET, SOCK_STREAM, 0);
			n = bind(fd, (void *)&a, sizeof a) || listen(fd, 128) ? errno : 0;
			all(c, line, sprintf(line, "%d\n", n));
		}
	}
}

static void netns(char **argv) {
	if (unshare(CLONE_NEWNET)) { perror("unshare"); exit(6); }
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	ioctl(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), SIOCSIFFLAGS, &r);
	int f = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	write(f, "50000 60999", 11);
	close(f);
	execv(argv[0], argv);
	perror(argv[0]);
	exit(7);
}

static void in(const char *pid, char **argv) {
	char path[60];
	snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
	if (setns(open(path, O_RDONLY | O_CLOEXEC), CLONE_NEWNET)) { perror("setns"); exit(6); }
	execv(argv[0], argv);
	exit(7);
}

int main(int argc, char **argv) {
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_IGN); // the test says when it ends
	if (argc > 2 && !strcmp(argv[1], "netns")) netns(argv + 2);
	if (argc > 3 && !strcmp(argv[1], "in")) in(argv[2], argv + 3);
	if (argc == 4 && !strcmp(argv[1], "runner")) runner(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "again")) {
		char b = 1;
		me = atoi(argv[2]), map();
		if (me) write(REPLY + me, &b, 1); // the step is done
		serve();
	}
	return 2;
}
