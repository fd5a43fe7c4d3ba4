package identity

import (
	"bytes"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// TestSignedBytesAreDSSEs: what is signed is what any library for DSSE makes of it.
func TestSignedBytesAreDSSEs(t *testing.T) {
	for _, body := range []string{"", "{}", "a\nb\x00é%s", string(make([]byte, 100_000))} {
		for _, subject := range []string{"", "event.1.gateway.hello._._.app.created._._", "100%d"} {
			if got, want := signedBytes(subject, []byte(body)), dsse.PAE(PayloadType, []byte(subject+"\n"+body)); !bytes.Equal(got, want) {
				t.Errorf("%.100q, want %.100q", got, want)
			}
		}
	}
}
