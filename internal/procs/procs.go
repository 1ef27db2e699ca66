// Package procs reads what the kernel says of processes.
package procs

import (
	"os"
	"strconv"
	"strings"
)

// Process is one of /proc.
type Process struct {
	PID   int
	Group int     // process group
	RSS   int64   // resident memory, in bytes, what is shared with others included
	CPU   float64 // seconds, user and system
}

// Walk calls f for each process that can be seen. One that ends meanwhile is left
// out.
func Walk(f func(Process)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	page := int64(os.Getpagesize())
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parse(string(b), page); ok {
			p.PID = pid
			f(p)
		}
	}
}

// parse reads a line of /proc/PID/stat. After the name, which may have anything in
// it: 3 state, 4 ppid, 5 pgrp … 14 utime, 15 stime … 24 rss (proc_pid_stat(5)).
func parse(stat string, page int64) (p Process, ok bool) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 22 {
		return p, false
	}
	p.Group, _ = strconv.Atoi(f[2])
	utime, _ := strconv.ParseFloat(f[11], 64)
	stime, _ := strconv.ParseFloat(f[12], 64)
	rss, _ := strconv.ParseInt(f[21], 10, 64)
	p.CPU, p.RSS = (utime+stime)/100, rss*page // USER_HZ is 100 on every Linux that Go runs on
	return p, true
}
