package config

import (
	"slices"
	"strings"
)

// launchers become the program that they are given, or wait for it and pass signals on.
var launchers = []struct {
	name   string
	alone  []string // options without a value
	valued []string // options with one, in the next word or, of one letter, in the same
	words  int      // between options and program
}{
	{"dumb-init", []string{"-c", "--single-child", "-v", "--verbose"}, nil, 0}, // -r: the user's own signals
	{"tini", []string{"-s", "-v", "-vv", "-vvv", "-w", "-g", "-sg", "-gs"}, []string{"-p", "-e"}, 0},
	{"setsid", []string{"-w", "-c", "--wait", "--ctty"}, nil, 0}, // -f: it goes into the background
	{"nohup", nil, nil, 0},
	{"nice", nil, []string{"-n", "--adjustment"}, 0},
	{"ionice", []string{"-t", "--ignore"}, []string{"-c", "-n", "--class", "--classdata"}, 0},
	{"stdbuf", nil, []string{"-i", "-o", "-e", "--input", "--output", "--error"}, 0},
	{"gosu", nil, nil, 1},
	{"su-exec", nil, nil, 1},
	{"setpriv", []string{"--clear-groups", "--init-groups", "--keep-groups", "--no-new-privs", "--nnp", "--reset-env"},
		[]string{"--reuid", "--regid", "--ruid", "--euid", "--rgid", "--egid", "--groups", "--inh-caps", "--ambient-caps", "--bounding-set", "--securebits"}, 0},
}

// afterLauncher skips a launcher, its options and its own words; nil: it is none that is
// known, or has options that are not.
func afterLauncher(name string, args []string) []string {
	for _, l := range launchers {
		if l.name != name && l.name+"-static" != name {
			continue
		}
		for len(args) > 0 && strings.HasPrefix(args[0], "-") {
			option, _, joined := strings.Cut(args[0], "=")
			switch {
			case args[0] == "--":
				return skip(args, 1+l.words)
			case slices.Contains(l.alone, args[0]):
				args = args[1:]
			case slices.Contains(l.valued, args[0]):
				args = skip(args, 2)
			case joined && strings.HasPrefix(option, "--") && slices.Contains(l.valued, option),
				!strings.HasPrefix(option, "--") && len(option) > 2 && slices.Contains(l.valued, option[:2]):
				args = args[1:]
			default:
				return nil
			}
		}
		return skip(args, l.words)
	}
	return nil
}

func skip(args []string, n int) []string { return args[min(n, len(args)):] }
