// The options that scripts set, and that a look reads.
static const struct option {
	const char *name;
	int level, number, size; // size 4: a number; 8: two numbers; 16: bytes
	int volatile_;           // of a connection, it depends on what has arrived
} options[] = {
#define S(n, ...) {#n, SOL_SOCKET, n, __VA_ARGS__}
#define I(n, ...) {#n, IPPROTO_IP, n, __VA_ARGS__}
#define V(n, ...) {#n, IPPROTO_IPV6, n, __VA_ARGS__}
#define T(n, ...) {#n, IPPROTO_TCP, n, __VA_ARGS__}
	S(SO_TYPE, 4), S(SO_DOMAIN, 4), S(SO_PROTOCOL, 4), S(SO_ACCEPTCONN, 4), S(SO_ERROR, 4, 1), S(SO_REUSEADDR, 4), S(SO_REUSEPORT, 4),
	S(SO_KEEPALIVE, 4), S(SO_BROADCAST, 4), S(SO_OOBINLINE, 4), S(SO_SNDBUF, 4, 1), S(SO_RCVBUF, 4, 1), S(SO_LINGER, 8), S(SO_PRIORITY, 4),
	S(SO_MARK, 4), S(SO_RCVLOWAT, 4), S(SO_RCVTIMEO, 16), S(SO_SNDTIMEO, 16), S(SO_TIMESTAMP, 4), S(SO_TIMESTAMPNS, 4), S(SO_PASSCRED, 4),
	S(SO_BINDTODEVICE, 16), S(SO_BINDTOIFINDEX, 4), S(SO_BUSY_POLL, 4), S(SO_DONTROUTE, 4), S(SO_NO_CHECK, 4), S(SO_LOCK_FILTER, 4),
	S(SO_MAX_PACING_RATE, 8), S(SO_TXREHASH, 4), S(SO_BUF_LOCK, 4), S(SO_RCVMARK, 4), S(SO_PEEK_OFF, 4), S(SO_RXQ_OVFL, 4),
	S(SO_SELECT_ERR_QUEUE, 4), S(SO_WIFI_STATUS, 4), S(SO_NOFCS, 4), S(SO_ZEROCOPY, 4), S(SO_PREFER_BUSY_POLL, 4), S(SO_TIMESTAMPING, 4),
	I(IP_TOS, 4), I(IP_TTL, 4), I(IP_FREEBIND, 4), I(IP_TRANSPARENT, 4), I(IP_MTU_DISCOVER, 4), I(IP_RECVERR, 4), I(IP_MINTTL, 4),
	I(IP_BIND_ADDRESS_NO_PORT, 4), I(IP_RECVTTL, 4), I(IP_PKTINFO, 4), I(IP_RECVTOS, 4), I(IP_RECVOPTS, 4), I(IP_RETOPTS, 4),
	I(IP_MULTICAST_TTL, 4), I(IP_MULTICAST_LOOP, 4), I(IP_RECVORIGDSTADDR, 4), I(IP_PASSSEC, 4), I(IP_OPTIONS, 16),
	V(IPV6_V6ONLY, 4), V(IPV6_TCLASS, 4), V(IPV6_UNICAST_HOPS, 4), V(IPV6_RECVPKTINFO, 4), V(IPV6_FREEBIND, 4), V(IPV6_TRANSPARENT, 4),
	V(IPV6_MINHOPCOUNT, 4), V(IPV6_RECVERR, 4), V(IPV6_MTU_DISCOVER, 4), V(IPV6_AUTOFLOWLABEL, 4), V(IPV6_DONTFRAG, 4),
	V(IPV6_ADDR_PREFERENCES, 4), V(IPV6_RECVHOPLIMIT, 4), V(IPV6_RECVTCLASS, 4), V(IPV6_MULTICAST_HOPS, 4),
	T(TCP_NODELAY, 4), T(TCP_MAXSEG, 4, 1), T(TCP_CORK, 4), T(TCP_KEEPIDLE, 4), T(TCP_KEEPINTVL, 4), T(TCP_KEEPCNT, 4), T(TCP_SYNCNT, 4),
	T(TCP_LINGER2, 4), T(TCP_DEFER_ACCEPT, 4), T(TCP_WINDOW_CLAMP, 4, 1), T(TCP_QUICKACK, 4, 1), T(TCP_CONGESTION, 16),
	T(TCP_THIN_LINEAR_TIMEOUTS, 4), T(TCP_USER_TIMEOUT, 4), T(TCP_FASTOPEN, 4), T(TCP_NOTSENT_LOWAT, 4), T(TCP_SAVE_SYN, 4), T(TCP_TX_DELAY, 4),
	T(TCP_INQ, 4), T(TCP_FASTOPEN_CONNECT, 4), T(TCP_FASTOPEN_NO_COOKIE, 4),
};

static int optionby(const char *name) {
	for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
		if (!strcmp(options[i].name, name)) return i;
	return -1;
}

// sayoption says the value of an option; nothing, where the socket has none.
static void sayoption(int fd, int i) {
	unsigned char v[64] = {0};
	socklen_t n = options[i].size;
	if (getsockopt(fd, options[i].level, options[i].number, v, &n)) {
		if (errno != ENOPROTOOPT && errno != EOPNOTSUPP && errno != EINVAL) say(" %s:%s", options[i].name, err(errno));
		return;
	}
	say(" %s:", options[i].name);
	int32_t w[2];
	memcpy(w, v, 8);
	if (options[i].size == 4) say("%d", w[0]);
	else if (options[i].size == 8) say("%d,%d", w[0], w[1]);
	else for (unsigned k = 0; k < n && k < 64; k++) say("%02x", v[k]);
}

static void setoption(int fd, const char *name, const char *value) {
	int i = optionby(name), r;
	if (i < 0) { say("what?"); return; }
	int w[2] = {0, 0};
	int64_t t[2] = {0, 0};
	if (!strcmp(name, "TCP_CONGESTION") || !strcmp(name, "SO_BINDTODEVICE"))
		r = setsockopt(fd, options[i].level, options[i].number, value, strlen(value));
	else if (options[i].size == 16) t[0] = atoi(value), r = setsockopt(fd, options[i].level, options[i].number, t, 16);
	else sscanf(value, "%d,%d", w, w + 1), r = setsockopt(fd, options[i].level, options[i].number, w, options[i].size);
	say("%s", r ? err(errno) : "0");
}
