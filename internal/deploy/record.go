// Package deploy keeps versions of a program side by side in one folder, as RackMan
// did: each in a directory of its own, one of them live. Its files are RackMan's,
// readable both ways. It knows nothing of the service that runs them.
//
//	/srv/web/.rack.json     which versions there are, which is live, what was live when
//	/srv/web/v1/, v2/       the versions
//	/srv/web/.rackversion   the oldest form: the name of the live version
//	/srv/web/.deploy-…      a copy that is not finished; never a version
package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The files.
const (
	File        = ".rack.json"
	VersionFile = ".rackversion"
	IgnoreFile  = ".rackignore"
	lockFile    = ".rack.lock"
	unfinished  = ".deploy-"
	replaced    = ".replaced-"
)

// Record is the content of .rack.json. Unknown keys are kept.
type Record struct {
	ResourceLink string           // of setup -s: the link in the folder; "": none
	Resources    string           // directory inside of a version
	Head         string           // the live version; "": none
	Versions     []string         // oldest first
	History      []Live           // the history of live versions, oldest first
	Deployed     map[string]About // details of versions
	other        map[string]json.RawMessage
}

// Live is one change of what is live.
type Live struct {
	Version string    `json:"version"`
	At      time.Time `json:"at"`
	By      string    `json:"by,omitempty"`
	How     string    `json:"how"` // switch, rollback
}

// About describes the origin of a version.
type About struct {
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"`
	From string    `json:"from,omitempty"`
}

// Parse parses a record. Versions may be numbers: RackMan writes those that look like one
// as numbers.
func Parse(b []byte) (*Record, error) {
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("\ufeff")), &all); err != nil {
		return nil, err
	}
	r := &Record{other: all}
	var err error
	if r.ResourceLink, err = word(all, "resourceLink"); err != nil {
		return nil, err
	}
	if r.Resources, err = word(all, "resources"); err != nil {
		return nil, err
	}
	if r.Head, err = word(all, "head"); err != nil {
		return nil, err
	}
	if v, ok := all["versions"]; ok && string(v) != "null" {
		var list []json.RawMessage
		if err := json.Unmarshal(v, &list); err != nil {
			return nil, errors.New("versions: want a list")
		}
		for _, raw := range list {
			name, err := word(map[string]json.RawMessage{"versions": raw}, "versions")
			if err != nil {
				return nil, err
			}
			if CheckName(name) == nil && !slices.Contains(r.Versions, name) { // RackMan also registers a version twice
				r.Versions = append(r.Versions, name)
			}
		}
	}
	if v, ok := all["history"]; ok {
		if err := json.Unmarshal(v, &r.History); err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	}
	if v, ok := all["deployed"]; ok {
		if err := json.Unmarshal(v, &r.Deployed); err != nil {
			return nil, fmt.Errorf("deployed: %w", err)
		}
	}
	if r.Head != "" {
		if err := CheckName(r.Head); err != nil {
			return nil, fmt.Errorf("head: %w", err)
		}
	}
	return r, nil
}

// word is a string, or a number as it stands; false, null and nothing are "".
func word(all map[string]json.RawMessage, key string) (string, error) {
	raw := strings.TrimSpace(string(all[key]))
	switch {
	case raw == "" || raw == "null" || raw == "false":
		return "", nil
	case raw[0] == '"':
		var s string
		err := json.Unmarshal([]byte(raw), &s)
		return s, err
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		return raw, nil
	}
	return "", fmt.Errorf("%s: want a string", key)
}

// Config is the folder's configuration, which overrides a version's; nil: none.
func (r *Record) Config() map[string]any {
	var over map[string]any
	json.Unmarshal(r.other["config"], &over)
	return over
}

// Marshal writes a record as RackMan does: two blanks, false for what is not there.
func (r *Record) Marshal() ([]byte, error) {
	all := map[string]any{}
	for k, v := range r.other {
		all[k] = v
	}
	orFalse := func(s string) any {
		if s == "" {
			return false
		}
		return s
	}
	all["resourceLink"], all["head"] = orFalse(r.ResourceLink), orFalse(r.Head)
	if r.Resources != "" {
		all["resources"] = r.Resources
	}
	all["versions"] = append([]string{}, r.Versions...)
	if len(r.History) > 0 {
		all["history"] = r.History
	}
	if len(r.Deployed) > 0 {
		all["deployed"] = r.Deployed
	}
	b, err := json.MarshalIndent(all, "", "  ")
	return append(b, '\n'), err
}

// CheckName reports whether a version's name is one that stays in its folder.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > 200 || !utf8.ValidString(name):
		return errors.New("a version has a name of 1 to 200 bytes")
	case name[0] == '.' || name[0] == '-' || name[0] == '#' || name[0] == '^':
		return fmt.Errorf("invalid version %q: a name does not begin with %q", name, name[:1])
	case strings.ContainsAny(name, "/\\") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("invalid version %q: a name has no slashes and no control characters", name)
	}
	return nil
}
