package descendants

import (
	"golang.org/x/sys/unix"
)

// maxFreezes limits how often the members are looked for while they are being stopped.
const maxFreezes = 16

// exterminate kills the members, also where they fork without end, which is quicker than
// who kills one after the other. The worker's process group gets the signal as a whole: the
// kernel lets no fork escape it (copy_process fails while a signal is pending). The others
// are stopped until a look finds no new ones, since a stopped process does not fork. It
// returns those that were killed.
func (t *Tracker) exterminate(tr *tree) []Process {
	before := tr.processes()
	if tr.group != nil {
		tr.group.SignalGroup(unix.SIGKILL) // before Linux 6.9 the others do
	}
	stopped := map[Process]bool{}
	for range maxFreezes {
		tr.look()
		t.reparented(tr)
		t.watch(tr)
		news := 0
		for _, m := range tr.members {
			if id := (Process{PID: m.PID, Start: m.Start}); !stopped[id] {
				stopped[id] = true
				m.signal(unix.SIGSTOP)
				news++
			}
		}
		if news == 0 {
			break
		}
	}
	killed := tr.signal(unix.SIGKILL, nil)
	if len(killed) < len(before) {
		return before // the group's have gone meanwhile
	}
	return killed
}
