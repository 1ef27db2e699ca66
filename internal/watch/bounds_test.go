package watch

import (
	"strings"
	"testing"
)

// A glob of a few bytes that each changed file would be compared with for ever.
func TestAlternativesAreBounded(t *testing.T) {
	for glob, ok := range map[string]bool{"**/*.{js,mjs,cjs}": true, "{a,b}/{c,d}/*.{js,ts}": true, strings.Repeat("{a,a}", 30) + "x": false, strings.Repeat("{a,", 20) + strings.Repeat("}", 20): true, strings.Repeat("{", 1<<20): false, strings.Repeat("{a,a,a,a,{b}}", 10): false, "{" + strings.Repeat("{a,b}", 20) + "}": false,
		"{a,\\{b,\\}}": true, "!" + strings.Repeat("{a,a}", 30): false} {
		if err := Check([]string{glob}); (err == nil) != ok {
			t.Errorf("%s: %v", glob, err)
		}
	}
}
