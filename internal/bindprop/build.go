package bindprop

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed program
var source embed.FS

// Build compiles the program into a folder. The error is exec.ErrNotFound's where there is
// no C compiler.
func Build(dir string) (path string, err error) {
	for _, name := range []string{"program.c", "options.h"} {
		b, err := source.ReadFile("program/" + name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return "", err
		}
	}
	path = filepath.Join(dir, "program")
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command(cc, "-O1", "-w", "-static", "-o", path, path+".c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot compile the program: %w\n%s", err, out)
	}
	return path, nil
}
