package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// durationValue is a flag in Go's form, or a bare number of seconds.
type durationValue time.Duration

func duration(fs *pflag.FlagSet, p *time.Duration, name, usage string) {
	fs.Var((*durationValue)(p), name, usage)
}

func (d *durationValue) Set(s string) error {
	v, err := ParseDuration(s)
	*d = durationValue(v)
	return err
}

func (d *durationValue) Type() string { return "duration" }

func (d *durationValue) String() string {
	s := time.Duration(*d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// Auto is a duration that is determined automatically.
const Auto time.Duration = -1

// autoValue is a duration, or auto.
type autoValue time.Duration

func (d *autoValue) Set(s string) error {
	if s == "auto" {
		*d = autoValue(Auto)
		return nil
	}
	v, err := ParseDuration(s)
	*d = autoValue(v)
	return err
}

func (d *autoValue) Type() string { return "duration" }

func (d *autoValue) String() string {
	if time.Duration(*d) == Auto {
		return "auto"
	}
	return (*durationValue)(d).String()
}

// ParseDuration reads "1m30s", "250ms" or "90", which is seconds.
func ParseDuration(s string) (time.Duration, error) {
	const most = 1 << 53
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseFloat(s, 64); nerr == nil {
		// The result of converting NaN, or a too large value, depends on the processor:
		// NaN is 0 on arm64.
		if n *= float64(time.Second); !(n >= 0 && n <= most) {
			n = -1
		}
		d, err = time.Duration(n), nil
	}
	if err != nil || d < 0 || d > most {
		return 0, errors.New("want a duration like 500ms, 30s or 2m, or a number of seconds")
	}
	return d, nil
}

// choiceValue is a flag with a few possible values.
type choiceValue struct {
	p     *string
	words []string
}

func choice(fs *pflag.FlagSet, p *string, name, usage string, words ...string) {
	fs.Var(&choiceValue{p, words}, name, usage)
}

func (c *choiceValue) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.words, ", "))
	}
	*c.p = s
	return nil
}

func (c *choiceValue) Type() string    { return "word" }
func (c *choiceValue) String() string  { return *c.p }
func (c *choiceValue) Words() []string { return c.words } // for shell completion
