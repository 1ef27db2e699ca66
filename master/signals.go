package master

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// watchSignals posts the signals that handoff knows until stop is called. SIGPIPE
// is caught so that a closed stderr ends nothing; caught, not ignored, since
// workers would inherit that.
func watchSignals(post func(event)) (stop func()) {
	ch := make(chan os.Signal, 16)
	pipe := make(chan os.Signal, 1) // never read: the signal is dropped
	signal.Notify(ch, unix.SIGUSR2, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT,
		unix.SIGTTIN, unix.SIGTTOU, unix.SIGUSR1)
	signal.Notify(pipe, unix.SIGPIPE)
	go func() { // ends when ch is closed
		for s := range ch {
			post(signalled{s})
		}
	}()
	return func() {
		signal.Stop(ch)
		signal.Stop(pipe)
		close(ch)
	}
}
