package hostile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"handoff/internal/load"
	"handoff/internal/logtest"
)

// Bad days of the network, and of those that watch.
func networkRows() []row {
	return append([]row{
		{group: "day", name: "tiny-queues", tries: "max_dgram_qlen 0 and 1, somaxconn 4, tcp_syncookies 0: reloads, an upgrade, master and keeper killed", run: tinyQueues},
		{group: "day", name: "idle-connections", tries: "10 000 idle connections to Node, 500 to a Python with a thread for each, while it reloads", alone: true, run: idleConnections},
		{group: "day", name: "half-open", tries: "bursts of 3 000 half-open handshakes from nowhere while it reloads, with syncookies and without", run: halfOpen},
		{group: "day", name: "usr2-storm", tries: "200 USR2 in 2 s", run: usr2Storm},
		{group: "day", name: "masters-killed", tries: "30 masters killed, each as soon as it has adopted the workers, six reloads between", run: mastersKilled},
		{group: "day", name: "keepers-killed", tries: "the keeper killed five times, the last time after an upgrade", short: true, run: keepersKilled},
		{group: "day", name: "all-killed-python", tries: "keeper, master and half of the workers killed in one instant, then handoff is started again; Python", run: func(t *testing.T, r *report) { allKilled(t, r, false) }},
		{group: "day", name: "all-killed-node", tries: "the same with Node, whose workers end with their channel", run: func(t *testing.T, r *report) { allKilled(t, r, true) }},
	}, binaryRows()...)
}

func tinyQueues(t *testing.T, r *report) {
	if !ownNetwork(t, r) {
		return
	}
	sysctl(t, "net.core.somaxconn=4", "net.ipv4.tcp_syncookies=0", "net.ipv4.tcp_max_syn_backlog=8")
	for _, length := range []string{"0", "1"} {
		sysctl(t, "net.unix.max_dgram_qlen="+length)
		languages(t, func(t *testing.T, node bool) {
			d := startDay(t, node, options{})
			c := d.clients()
			c.more(t, 100)
			d.reload()
			d.killMaster()
			d.reload()
			d.must("upgrade")
			d.reload()
			c.more(t, 100)
			d.killKeeper()
			d.reload()
			c.more(t, 100)
			d.over(c, r)
			r.says(d.says("keeper.mute", "master.adopted"))
		})
	}
}

func usr2Storm(t *testing.T, r *report) {
	languages(t, func(t *testing.T, node bool) {
		d := startDay(t, node, options{})
		c := d.clients()
		c.more(t, 50)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range 200 {
			<-tick.C
			unix.Kill(d.pid, unix.SIGUSR2)
		}
		d.atRest()
		c.more(t, 100)
		r.says(fmt.Sprintf("`cluster.reloading` %d times, `cluster.reloaded` %d times", len(d.said("cluster.reloading")), len(d.said("cluster.reloaded"))))
		d.over(c, r)
	})
}

func mastersKilled(t *testing.T, r *report) {
	languages(t, func(t *testing.T, node bool) {
		d := startDay(t, node, options{})
		c := d.clients()
		c.more(t, 50)
		began := time.Now()
		for i := range 30 {
			if i%5 == 4 {
				unix.Kill(d.pid, unix.SIGUSR2)
			}
			d.killMaster()
		}
		t.Logf("30 masters killed in %v", time.Since(began))
		d.atRest()
		c.more(t, 100)
		d.over(c, r)
		r.says(d.says("master.adopted"))
	})
}

func keepersKilled(t *testing.T, r *report) {
	languages(t, func(t *testing.T, node bool) {
		d := startDay(t, node, options{})
		c := d.clients()
		c.more(t, 50)
		for i := range 5 {
			if i == 4 {
				d.must("upgrade")
			}
			d.killKeeper()
		}
		d.atRest()
		c.more(t, 100)
		d.over(c, r)
		r.says(d.says("keeper.died"))
	})
}

// allKilled kills all that watches and half of what serves at once, and starts handoff
// again, as a service manager does. Node's workers end with their primary, also those of
// Node's own cluster module: the same is done to that.
func allKilled(t *testing.T, r *report, node bool) {
	d := startDay(t, node, options{})
	c := d.clients()
	c.more(t, 100)
	master, workers := d.current(), children(d.current())
	for _, pid := range []int{d.pid, master} { // or one acts before the other dies
		unix.Kill(pid, unix.SIGSTOP)
	}
	for _, pid := range []int{workers[0], master, d.pid} {
		unix.Kill(pid, unix.SIGKILL)
	}
	began := time.Now()
	d.again()
	first := d.await(map[bool]string{false: "master.recovered", true: "cluster.started"}[node])
	t.Logf("%v after %v", first, time.Since(began))
	r.says(first.String())
	d.atRest()
	c.more(t, 100)
	d.reload()
	c.more(t, 50)
	r.documented("what was inside the killed worker")
	c.count(t, r, false)
	d.whole()
	if !node {
		if got := c.Parts()[0].Result(); got.Failed[load.Refused]+got.Failed[load.Timeout] > 0 || r.lost > crowd/2 {
			t.Errorf("more is lost than what can have been inside the killed worker: %v", got)
		}
		return
	}
	requests, lost := bareCluster(t)
	r.documented(fmt.Sprintf("under Node's own cluster module, treated likewise, they lost %d of %d: a worker ends with its primary, and what was queued with it", lost, requests))
}

// bareCluster kills the primary of Node's own cluster module and one of its two workers,
// and starts it again.
func bareCluster(t *testing.T) (requests, lost int64) {
	t.Helper()
	program := calm(t, true)[0]
	s := &service{t: t, dir: folder(t), addr: "127.0.0.1:" + freePort(t), Log: logtest.New()}
	start := func() {
		s.spawn("node", "-e", `
const cluster = require('cluster')
cluster.setupPrimary({ exec: process.argv[1], execArgv: [] })
for (const id of ['0', '1']) cluster.fork({ WORKER_ID: id, HANDOFF_GENERATION: '2' })
let n = 0
cluster.on('listening', () => { if (++n === 2) console.error(JSON.stringify({ event: 'cluster.started' })) })`, program)
		s.await("cluster.started")
	}
	start()
	c := s.clients()
	c.more(t, 100)
	workers := children(s.cmd.Process.Pid)
	unix.Kill(workers[0], unix.SIGKILL)
	unix.Kill(s.cmd.Process.Pid, unix.SIGKILL)
	start()
	c.more(t, 200)
	bare := report{limit: "of Node itself"}
	c.count(t, &bare, false)
	s.cmd.Process.Kill()
	s.cmd.Wait()
	return bare.requests, bare.lost
}

func idleConnections(t *testing.T, r *report) {
	if !ownNetwork(t, r) {
		return
	}
	for node, n := range map[bool]int{true: 10_000, false: 500} { // Python's has a thread for each
		d := startDay(t, node, options{flags: []string{"--drain-timeout", "5s"}})
		idle := dialIdle(t, d.addr, n)
		c := d.clients()
		c.more(t, 100)
		for range 3 {
			d.reload()
			c.more(t, 100)
		}
		d.over(c, r)
		reset := 0
		for _, conn := range idle {
			if node && broken(conn) { // Python's are held until the drain's timeout
				reset++
			}
			conn.Close()
		}
		t.Logf("of %d idle connections %d were reset", len(idle), reset)
		r.count(0, int64(reset), 0)
		r.says(d.says("cluster.reloaded"))
	}
}

func halfOpen(t *testing.T, r *report) {
	if !ownNetwork(t, r) {
		return
	}
	flood := fromNowhere(t)
	for _, cookies := range []string{"1", "0"} {
		sysctl(t, "net.ipv4.tcp_syncookies="+cookies)
		languages(t, func(t *testing.T, node bool) {
			d := startDay(t, node, options{env: []string{"HOST=" + inside}})
			d.addr = strings.Replace(d.addr, "127.0.0.1", inside, 1)
			c := d.clients()
			c.more(t, 100)
			for range 3 {
				flood(d.addr, 1000)
				began := time.Now()
				d.reload()
				t.Logf("a reload beside half-open handshakes takes %v", time.Since(began))
				c.more(t, 100)
			}
			d.over(c, r)
			r.says(d.says("cluster.reloaded"))
		})
	}
}
