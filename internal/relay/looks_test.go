package relay

import (
	"strings"
	"testing"
)

func TestLooks(t *testing.T) {
	for first, want := range map[string]Verdict{
		"":                                       More,
		"\r\n":                                   More,
		"G":                                      More,
		"GET":                                    More,
		"GET /":                                  More,
		"GET / HTTP/1.":                          More,
		"GET / HTTP/1.1":                         More,
		"GET / HTTP/1.1\r":                       More,
		"GET / HTTP/1.1\r\n":                     HTTP1,
		"GET / HTTP/1.0\n":                       HTTP1,
		"\r\nGET / HTTP/1.1\r\nHost":             HTTP1,
		"VERSION-CONTROL http://a/ HTTP/1.1\r\n": HTTP1,
		"OPTIONS * HTTP/1.1\r\n":                 HTTP1,
		"CONNECT a:1 HTTP/1.1\r\n":               HTTP1,
		"GET /" + strings.Repeat("a", PeekSize):  HTTP1,
		"GET / HTTP/2":                           Other,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":       Other,
		"PRI * HTTP/2":                           Other,
		"GET /\r\n":                              Other, // HTTP/0.9, and Redis
		"PING\r\n":                               Other,
		"*1\r\n$4\r\nPING\r\n":                   Other,
		"\x16\x03\x01\x02":                       Other,
		"\x81\x85":                               Other, // a frame of a websocket
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n": Other,
		"DESCRIBE rtsp://a/ RTSP/1.0\r\n":        Other,
		"INVITE sip:a SIP/2.0\r\n":               Other,
		" GET / HTTP/1.1\r\n":                    Other,
		"GET  / HTTP/1.1\r\n":                    Other,
		"GET / HTTP/1.1 \r\n":                    Other,
		"\x00":                                   Other,
		strings.Repeat("\r\n", 5):                Other,
		strings.Repeat("\n", 9) + "GET / HTTP/1.1\r\n": Other,
		strings.Repeat("A", 33):                        Other,
	} {
		if got := Looks([]byte(first)); got != want {
			t.Errorf("%.60q: %s, want %s", first, got, want)
		}
	}
}
