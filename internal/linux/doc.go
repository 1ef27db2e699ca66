// Package linux is what the rest of handoff asks the kernel about processes, once
// each: pidfd_open(2) and what goes through one, memfd_create(2), proc(5). It knows
// nothing of workers, masters or services, and imports the standard library and
// x/sys alone.
package linux
