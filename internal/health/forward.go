package health

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// exec runs the command. It reaches the worker by a unix socket in a folder that only this user
// can enter: on a port of loopback any user could.
func (c *Check) exec(ctx context.Context, dial Dial, about map[string]any) error {
	path, stop, err := Forward(ctx, dial)
	if err != nil {
		return Skipped{err}
	}
	defer stop()
	about = maps.Clone(about)
	about["socket"] = path
	if err := c.Command(ctx, c.Target, about); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

// maxForwards limits the connections of one Forward at once.
const maxForwards = 16

// Forward listens on a unix socket of this user's alone, and passes each connection on to one
// that dial opens, until stop is called.
func Forward(ctx context.Context, dial Dial) (path string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "handoff-") // 0700
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "worker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	free := make(chan struct{}, maxForwards)
	all.Go(func() { // ends with l
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			free <- struct{}{}
			all.Go(func() { // ends with the connection, or with ctx
				defer func() { <-free }()
				forward(ctx, near, dial)
			})
		}
	})
	return path, func() {
		l.Close()
		cancel()
		all.Wait()
		os.RemoveAll(dir)
	}, nil
}

func forward(ctx context.Context, near net.Conn, dial Dial) {
	defer near.Close()
	far, err := dial(ctx)
	if err != nil {
		return
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(near, far)
		closeWrite(near)
	})
	io.Copy(far, near)
	closeWrite(far)
	back.Wait()
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}
