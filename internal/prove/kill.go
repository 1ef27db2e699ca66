package prove

import (
	"context"
	"errors"
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"handoff/internal/api"
	"handoff/internal/linux"
)

// killWorker kills the process group of a worker. It stops it (SIGSTOP) first, to list
// the connections inside.
func (h *Handoff) killWorker(ctx context.Context) (note string, err error) {
	s, err := h.Status()
	if err != nil {
		return "", err
	}
	var victim api.WorkerStatus // the oldest that serves
	for _, w := range s.Workers {
		if w.Steered && (victim.PID == 0 || w.Worker < victim.Worker) {
			victim = w
		}
	}
	if victim.PID == 0 {
		return "", errors.New("no worker serves")
	}
	var group []*linux.Pidfd
	defer func() {
		for _, p := range group {
			p.Close()
		}
	}()
	for p := range linux.Processes() {
		if p.Group == victim.PID {
			if pidfd, err := linux.OpenPidfd(p.PID); err == nil {
				group = append(group, pidfd)
			}
		}
	}
	for _, p := range group {
		if p.Signal(unix.SIGSTOP) == nil {
			stopped(ctx, p.PID())
		}
	}
	inside := clientPorts(group)
	h.mu.Lock()
	h.inside = inside
	h.mu.Unlock()
	for _, p := range group {
		if err := p.TrySignal(unix.SIGKILL); err != nil {
			return "", err
		}
	}
	_, err = h.await(ctx, func(s api.Status) bool {
		for _, w := range s.Workers {
			if w.PID == victim.PID {
				return false
			}
		}
		return s.State == api.StateServing
	})
	return "", err
}

// clientPorts returns the remote ports of the TCP connections of processes.
func clientPorts(group []*linux.Pidfd) map[string]bool {
	inodes := map[uint64]bool{}
	for _, p := range group {
		for _, inode := range linux.Sockets(p.PID()) {
			inodes[inode] = true
		}
	}
	ports := map[string]bool{}
	for c := range linux.TCPSockets() {
		if inodes[c.Inode] && c.Remote != 0 {
			ports[strconv.Itoa(int(c.Remote))] = true
		}
	}
	return ports
}

// Inside reports whether a connection was inside a killed worker.
func (h *Handoff) Inside(local string) bool {
	_, port, _ := net.SplitHostPort(local)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inside[port]
}
