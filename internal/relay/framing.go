package relay

import "bytes"

// framing knows where the body of a message ends, while its bytes pass.
type framing struct {
	kind  framingKind
	left  uint64 // of a length, or of a chunk's data
	state chunkState
	digit int // of a chunk's size
}

type framingKind uint8

const (
	empty    framingKind = iota
	length               // left bytes
	chunked              // up to the last chunk's trailers
	untilEnd             // up to the end of the connection: what else cannot be told
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailer // at the beginning of a line
	trailerLine
	trailerLineLF
	trailerLF // of the empty line
	trailerEnd
)

// take returns how many of the bytes belong to the body, and whether it ends there. From
// where a body is not chunked as the standard wants it, its end is not known.
func (f *framing) take(p []byte) (n int, end bool) {
	switch f.kind {
	case empty:
		return 0, true
	case length:
		n = int(min(f.left, uint64(len(p))))
		f.left -= uint64(n)
		return n, f.left == 0
	case untilEnd:
		return 0, false
	}
	for n < len(p) {
		if f.state == chunkData {
			m := int(min(f.left, uint64(len(p)-n)))
			n += m
			if f.left -= uint64(m); f.left == 0 {
				f.state = chunkDataCR
			}
			continue
		}
		if f.state == chunkExtension || f.state == trailerLine { // nothing to see up to the line's end
			if i := bytes.IndexAny(p[n:], "\r\n"); i < 0 {
				return len(p), false
			} else if i > 0 {
				n += i
				continue
			}
		}
		if !f.step(p[n]) {
			f.kind = untilEnd
			return n, false
		}
		n++
		if f.state == trailerEnd {
			return n, true
		}
	}
	return n, false
}

// step takes a byte that is not data. Lines end with CR LF and nothing else.
func (f *framing) step(b byte) bool {
	switch f.state {
	case chunkSize:
		return f.size(b)
	case chunkExtension:
		f.state = chunkSizeLF
		return b == '\r'
	case chunkSizeLF:
		f.digit = 0
		if f.state = chunkData; f.left == 0 {
			f.state = trailer
		}
		return b == '\n'
	case chunkDataCR:
		f.state = chunkDataLF
		return b == '\r'
	case chunkDataLF:
		f.state = chunkSize
		return b == '\n'
	case trailer:
		if f.state = trailerLine; b == '\r' {
			f.state = trailerLF
		}
		return b != '\n'
	case trailerLine:
		f.state = trailerLineLF
		return b == '\r'
	case trailerLineLF:
		f.state = trailer
		return b == '\n'
	case trailerLF:
		f.state = trailerEnd
		return b == '\n'
	}
	return false
}

// maxDigits keeps a chunk's size within what left can hold.
const maxDigits = 15

func (f *framing) size(b byte) bool {
	var v byte
	switch {
	case b >= '0' && b <= '9':
		v = b - '0'
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		v = b | 0x20 - 'a' + 10
	case f.digit == 0:
		return false
	case b == '\r':
		f.state = chunkSizeLF
		return true
	case b == ';' || b == ' ' || b == '\t':
		f.state = chunkExtension
		return true
	default:
		return false
	}
	if f.digit == maxDigits {
		return false
	}
	f.digit++
	f.left = f.left<<4 | uint64(v)
	return true
}
