package linux

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// MkdirAll is os.MkdirAll, but the folders that it makes have the mode whatever the umask
// is: those of a service may be for another user, too.
func MkdirAll(path string, mode os.FileMode) error {
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: errors.New("not a folder")}
		}
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	err = os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) { // somebody else was quicker, or a link leads nowhere
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
