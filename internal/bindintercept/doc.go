// Package bindintercept gives an unmodified program, in any language, a listening socket
// that its master holds.
//
//	master                     trampoline = the program, later
//	  fork, exec ────────────►  installs a seccomp filter on bind(2), listen(2)
//	              ◄────────────  sends the notification descriptor
//	                             execs the program
//	                             bind(7, "0.0.0.0:8000")      stops here
//	  reads the address ◄──────
//	  puts the held socket under the program's own descriptor 7
//	  answers 0      ──────────► goes on
//	                             listen(7, 128)               stops here: ready
//	  answers 0      ──────────► accept(7) …                  never stops again
//
// Everything else is a system call like any other: the steady state costs
// nothing. The filter survives fork and exec, so shells, wrappers and pre-forking
// servers are covered by one notification descriptor.
//
// Sources: seccomp_unotify(2), seccomp(2), pidfd_getfd(2); tried on Linux 6.18.
package bindintercept
