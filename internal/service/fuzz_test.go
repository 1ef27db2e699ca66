package service

import (
	"bytes"
	"testing"
)

// What the keeper gives to the next master as its program.
func FuzzProgram(f *testing.F) {
	f.Add([]byte(`{"From":"L3Nydg==","Here":"L3Nydg==","Dir":"L3Nydg==","Args":["bm9kZQ==","YS5qcw=="],"Script":1,"Name":"d2Vi"}`))
	f.Add([]byte(`{"Dir":"Lw==","Args":["YQ=="],"Script":-1}`))
	f.Add([]byte(`{"Dir":"Lw==","Args":[],"Script":0}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, ok := Decode(text)
		if !ok {
			return
		}
		if args := p.Command(); len(args) == 0 || p.Script < 0 || p.Script >= len(args) || len(p.Dir) == 0 {
			t.Errorf("%q: %+v", text, p)
		}
		p.Path("x")
		one, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, ok := Decode(one)
		two, _ := again.Encode()
		if !ok || !bytes.Equal(one, two) {
			t.Errorf("%q became %q", one, two)
		}
	})
}
