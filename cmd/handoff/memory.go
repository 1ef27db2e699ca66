package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"handoff/internal/linux"
)

// spareThreads are for system calls that block for a moment, besides those that run Go.
const spareThreads = 10

// shrinkHeap keeps the master small: it allocates little, so that collecting often
// costs nothing.
func shrinkHeap() {
	debug.SetGCPercent(20)
	debug.FreeOSMemory()
	dropText()
	linux.ReserveThreads(runtime.GOMAXPROCS(0) + spareThreads)
	os.WriteFile("/proc/self/comm", []byte("handoff"), 0) // it was executed as /proc/self/exe
}

// dropText lets go of the pages of the binary that the start has touched, and what
// follows does not need: code of the command line, of TLS, tables. What is needed
// comes back from the page cache. Only what cannot have been written to is dropped
// (madvise(2), MADV_DONTNEED).
func dropText() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line) // 00400000-00869000 r-xp 00000000 fd:01 123 /bin/handoff
		if len(f) < 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
		}
	}
}
