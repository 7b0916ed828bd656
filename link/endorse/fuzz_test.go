package endorse

import "testing"

// FuzzAnswers: nothing that a service answers makes a reader fail otherwise than
// with an error.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"tcbInfo":{},"signature":"00"}`), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Add([]byte("<ds:X509Certificate>AAAA</ds:X509Certificate>"), "Sun, 06 Nov 1994 08:49:37 GMT")
	f.Add([]byte("3000"), "120")
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		if s, err := readSigned(&answer{body, header}, "tcbInfo"); err == nil && len(s.Doc) == 0 {
			t.Error("a document of no bytes")
		}
		if der, err := derList(body); err == nil && len(der) == 0 {
			t.Error("a list of no bytes")
		}
		if len(signers(body)) > maxSigners {
			t.Error("more signers than allowed")
		}
		if retryAfter(header) < 0 {
			t.Error("a pause in the past")
		}
		platform(body)
	})
}
