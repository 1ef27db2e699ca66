package bindintercept

import "golang.org/x/sys/unix"

// nameCalls are the calls, besides unlinkat(2), that take the name of a file away.
var nameCalls = []uint32{unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2}

// namesOf returns what a call that takes a name away is, with the arguments that say where:
// for each name a folder's descriptor, and the text's address.
func namesOf(nr int32, a [6]uint64) (op Op, names []nameArg) { return namesAt(nr, a) }
