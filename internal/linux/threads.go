package linux

import (
	"runtime"
	"sync"
)

// ReserveThreads makes threads that Go's scheduler keeps from then on. It makes them when it
// needs them, and ends the process where the kernel refuses one: a fork bomb of the same
// user would end keeper and master, besides all that it does.
func ReserveThreads(n int) {
	var all, leave sync.WaitGroup
	all.Add(n)
	leave.Add(1)
	for range n {
		go func() { // ends at once; its thread stays
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			leave.Wait()
		}()
	}
	all.Wait()
	leave.Done()
}
