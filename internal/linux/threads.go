package linux

import "runtime"

// ReserveThreads makes threads that Go's scheduler keeps from then on. It makes them when it
// needs them, and ends the process where the kernel refuses one: a fork bomb of the same
// user would end keeper and master, besides all that it does.
func ReserveThreads(n int) {
	have, leave := make(chan struct{}), make(chan struct{}) // leave is closed when all have one
	for range n {
		go func() { // ends at once; its thread stays
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			have <- struct{}{}
			<-leave
		}()
	}
	for range n {
		<-have
	}
	close(leave)
}
