package relay

import (
	"bytes"
	"strconv"
)

// request is what has to be known of a request: where it ends, and what its answer may be.
type request struct {
	size     int    // of its head
	method   string //
	body     framing
	switches bool      // its answer may make a tunnel of the connection
	tunnel   chan bool // of one that switches: whether it did; written to once
}

// parseRequest reads the head of a request; what is not whole, or leaves a doubt where the
// request ends, lasts until its answer has been given.
func parseRequest(head []byte, whole bool) *request {
	r := &request{size: len(head), tunnel: make(chan bool, 1)}
	h, ok := parseHead(head)
	method, rest, _ := bytes.Cut(h.first, []byte(" "))
	_, version, _ := bytes.Cut(rest, []byte(" "))
	r.method = string(method)
	minor := minorVersion(version)
	if !whole || !ok || minor < 0 || !isToken(method) {
		r.body.kind = untilEnd
		return r
	}
	r.switches = r.method == "CONNECT" || h.has("upgrade")
	r.body = h.framing(minor)
	if r.body.kind == untilEnd && !h.has("content-length") && !h.has("transfer-encoding") {
		r.body.kind = empty
	}
	return r
}

// answer is what has to be known of an answer.
type answer struct {
	head    head
	status  int
	body    framing
	interim bool // another answer to the same request follows
	tunnel  bool
	last    bool // it says itself that no other follows
}

// parseAnswer reads the head of an answer to a request of this method; false: it is none.
func parseAnswer(b []byte, method string) (a answer, ok bool) {
	a.head, _ = parseHead(b)
	version, rest, _ := bytes.Cut(a.head.first, []byte(" "))
	minor := minorVersion(version)
	code, _, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.ParseUint(string(code), 10, 16)
	if minor < 0 || err != nil || len(code) != 3 {
		return a, false
	}
	a.status = int(n)
	a.tunnel = n == 101 || method == "CONNECT" && n/100 == 2
	a.interim = n/100 == 1 && !a.tunnel
	if a.tunnel || a.interim {
		return a, true
	}
	if method != "HEAD" && n != 204 && n != 304 {
		a.body = a.head.framing(minor)
	}
	a.last = a.head.says("close") || minor == 0 && !a.head.says("keep-alive")
	return a, true
}

// minorVersion returns n of HTTP/1.n, or -1.
func minorVersion(version []byte) int {
	switch string(version) {
	case "HTTP/1.0":
		return 0
	case "HTTP/1.1":
		return 1
	}
	return -1
}

// head is the lines of a head.
type head struct {
	before []byte   // empty lines
	first  []byte   // without its end
	lines  [][]byte // first one and empty one included, with their ends
	fields []field
}

type field struct {
	name, value []byte
	line        int
}

// parseHead takes a head apart, and says whether it is written as the standard wants it.
func parseHead(b []byte) (h head, ok bool) {
	rest := bytes.TrimLeft(b, "\r\n")
	h.before = b[:len(b)-len(rest)]
	ok = len(rest) > 0
	for len(rest) > 0 {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		h.lines = append(h.lines, rest[:len(rest)-len(after)])
		rest = after
		text, cr := bytes.CutSuffix(line, []byte("\r"))
		ok = ok && found && cr && !bytes.ContainsAny(text, "\r\x00")
		if len(h.lines) == 1 {
			h.first = text
			continue
		}
		if len(text) == 0 {
			continue
		}
		name, value, colon := bytes.Cut(text, []byte(":"))
		ok = ok && colon && isToken(name) // a name with a space, a folded line: not one
		h.fields = append(h.fields, field{name, bytes.Trim(value, " \t"), len(h.lines) - 1})
	}
	return h, ok
}

func isToken(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z':
		case bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0:
		default:
			return false
		}
	}
	return len(b) > 0
}

// values returns the values of all fields of this name, which is in lower case.
func (h *head) values(name string) (values [][]byte) {
	for _, f := range h.fields {
		if len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
			values = append(values, f.value)
		}
	}
	return values
}

func (h *head) has(name string) bool { return len(h.values(name)) > 0 }

// says tells whether an option is among those of Connection.
func (h *head) says(option string) bool {
	for _, v := range h.values("connection") {
		for o := range bytes.SplitSeq(v, []byte(",")) {
			if bytes.EqualFold(bytes.Trim(o, " \t"), []byte(option)) {
				return true
			}
		}
	}
	return false
}

// framing is how the body is delimited. untilEnd where it is not, or where two readers might
// differ: both of length and chunks, two lengths, a coding that is not chunked alone, chunks
// in HTTP/1.0.
func (h *head) framing(minor int) framing {
	codings, lengths := h.values("transfer-encoding"), h.values("content-length")
	switch {
	case len(codings) == 1 && len(lengths) == 0 && minor == 1 && bytes.EqualFold(codings[0], []byte("chunked")):
		return framing{kind: chunked}
	case len(codings) == 0 && len(lengths) == 1 && isDigits(lengths[0]):
		n, err := strconv.ParseUint(string(lengths[0]), 10, 63)
		if err != nil {
			break
		}
		if n == 0 {
			return framing{}
		}
		return framing{kind: length, left: n}
	}
	return framing{kind: untilEnd}
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// closing returns the head with Connection: close. Everything else stays as it is, but for
// Keep-Alive, which says how long the connection is kept.
func (h *head) closing() []byte {
	out := bytes.Clone(h.before)
	drop, closed := map[int]bool{}, false
	replace := map[int][]byte{}
	for _, f := range h.fields {
		switch {
		case bytes.EqualFold(f.name, []byte("keep-alive")):
			drop[f.line] = true
		case bytes.EqualFold(f.name, []byte("connection")):
			replace[f.line] = closeOption(f.name, f.value, lineEnd(h.lines[f.line]))
			closed = true
		}
	}
	for i, line := range h.lines {
		if i > 0 && !closed && len(bytes.Trim(line, "\r\n")) == 0 {
			out = append(append(out, "Connection: close"...), lineEnd(line)...)
		}
		if r, ok := replace[i]; ok {
			line = r
		}
		if !drop[i] {
			out = append(out, line...)
		}
	}
	return out
}

// closeOption writes a Connection field anew: close instead of keep-alive, beside the
// other options.
func closeOption(name, value []byte, end []byte) []byte {
	line := append(bytes.Clone(name), ": "...)
	for o := range bytes.SplitSeq(value, []byte(",")) {
		if o = bytes.Trim(o, " \t"); len(o) > 0 && !bytes.EqualFold(o, []byte("keep-alive")) && !bytes.EqualFold(o, []byte("close")) {
			line = append(append(line, o...), ", "...)
		}
	}
	return append(append(line, "close"...), end...)
}

func lineEnd(line []byte) []byte {
	if bytes.HasSuffix(line, []byte("\r\n")) {
		return []byte("\r\n")
	}
	return []byte("\n")
}
