package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Recycle is when workers are replaced without a reload.
type Recycle struct {
	MaxAge      time.Duration
	MaxMemory   string
	MaxRequests int
	ReloadEvery time.Duration
	StallKill   time.Duration
}

// MaxMemoryBytes returns --max-memory in bytes; 0: none.
func (r *Recycle) MaxMemoryBytes() (int64, error) {
	if r.MaxMemory == "" {
		return 0, nil
	}
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(r.MaxMemory), "B"), "I")
	unit := int64(1)
	if n := len(text); n > 0 {
		if i := strings.IndexByte("KMGT", text[n-1]); i >= 0 {
			unit, text = 1<<(10*(i+1)), text[:n-1]
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 || math.IsInf(n, 0) || math.IsNaN(n) || n*float64(unit) > math.MaxInt64/2 || n*float64(unit) < 1 {
		return 0, fmt.Errorf("invalid --max-memory %q: want a size like 512M or 1.5G", r.MaxMemory)
	}
	return int64(n * float64(unit)), nil
}
