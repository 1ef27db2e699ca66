// Package linux wraps what handoff needs of the kernel, once each: pidfds,
// memfd_create(2), proc(5). It knows nothing of workers, masters or services, and imports
// only the standard library and x/sys.
package linux
