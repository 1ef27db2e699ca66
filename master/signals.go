package master

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// watchSignals posts the signals that handoff knows until stop is called. SIGPIPE
// is caught so that a closed stderr ends nothing; caught, not ignored, since
// workers would inherit that.
//
// The keeper passes them on as real-time signals, base above their numbers; 0 is
// no keeper.
func watchSignals(base int, post func(event)) (stop func()) {
	ch := make(chan os.Signal, 16)
	pipe := make(chan os.Signal, 1) // never read: the signal is dropped
	for _, s := range [...]unix.Signal{unix.SIGUSR2, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT,
		unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1} {
		signal.Notify(ch, s, s+unix.Signal(base))
	}
	signal.Notify(pipe, unix.SIGPIPE)
	go func() { // ends when ch is closed
		for s := range ch {
			if n := int(s.(unix.Signal)) - base; base > 0 && n > 0 {
				post(signalled{unix.Signal(n), true})
			} else {
				post(signalled{s, false})
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		signal.Stop(pipe)
		close(ch)
	}
}
