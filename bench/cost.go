package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"handoff/internal/bindintercept"
	"handoff/internal/cmsg"
	"handoff/internal/load"
)

// cost shows what the bind contract costs: a Go server bare and under it, and
// the start of a process bare and through the trampoline.
func cost(dir, bin string) error {
	server := filepath.Join(dir, "goserver")
	build := exec.Command("go", "build", "-o", server, "./integration/testdata/any/goserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the server: %w\n%s", err, out)
	}
	targets := []target{
		{name: "bare", app: []string{server}},
		{name: "bare, once more", app: []string{server}}, // what is noise
		{name: "bind contract, -n 1", args: []string{bin, "run", "-n", "1", "--log", "json", "--"}, app: []string{server}},
	}
	if *against != "" {
		targets = append(targets, target{name: "the other handoff, -n 1", args: []string{*against, "run", "-n", "1", "--log", "json", "--"}, app: []string{server}})
	}
	fmt.Printf("%-36s %9s %9s %15s %15s %8s\n", "a Go server", "req/s", "ratio", "server µs/req", "manager µs/req", "lost")
	for _, mode := range []load.Mode{load.New, load.KeepAlive} {
		got := make([][]figures, len(targets))
		for range *rounds * 2 {
			for i, t := range targets {
				f, err := measure(t, mode)
				if err != nil {
					return err
				}
				got[i] = append(got[i], f)
			}
		}
		bare := median(got[0], func(f figures) float64 { return f.rate })
		for i, t := range targets {
			rate := median(got[i], func(f figures) float64 { return f.rate })
			name := t.name + map[load.Mode]string{load.New: ", new", load.KeepAlive: ", keep-alive"}[mode]
			fmt.Printf("%-36s %9.0f %9.3f %15.2f %15.2f %8.0f\n", name, rate, rate/bare, median(got[i], func(f figures) float64 { return f.workerCPU }),
				median(got[i], func(f figures) float64 { return f.managerCPU }), median(got[i], func(f figures) float64 { return float64(f.lost) }))
		}
	}
	return starts(bin)
}

// starts compares the time from fork to exit of true(1).
func starts(bin string) error {
	const n = 200
	var bare, seated []time.Duration
	for range n {
		began := time.Now()
		if err := exec.Command("/bin/true").Run(); err != nil {
			return err
		}
		bare = append(bare, time.Since(began))
		ours, theirs, err := cmsg.Pair()
		if err != nil {
			return err
		}
		cmd := exec.Command(bin)
		cmd.Args = bindintercept.Args(3, 0, bindintercept.Conditions{}, "/bin/true", []string{"true"})
		cmd.ExtraFiles = []*os.File{theirs}
		began = time.Now()
		err = cmd.Run()
		seated = append(seated, time.Since(began))
		theirs.Close()
		ours.Close()
		if err != nil {
			return fmt.Errorf("the trampoline: %w", err)
		}
	}
	slices.Sort(bare)
	slices.Sort(seated)
	a, b := bare[n/2], seated[n/2]
	fmt.Printf("\nstart of true(1): %v bare, %v through the trampoline: %v more (medians of %d)\n",
		a.Round(10*time.Microsecond), b.Round(10*time.Microsecond), (b - a).Round(10*time.Microsecond), n)
	return nil
}
