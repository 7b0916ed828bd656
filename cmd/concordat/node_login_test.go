package main

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/daemon/config"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
)

// TestFlowerLogin: a node whose flwr command is reached by others starts with a whole login
// alone, and says what is missing.
func TestFlowerLogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := httptest.NewTLSServer(nil)
	t.Cleanup(own.Close)
	cert := own.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile := write("node.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	keyFile := write("node.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	secret, empty := write("secret", []byte("s3cret-of-this-node\n")), write("empty", []byte("\n"))
	const whole = `issuer: https://login.example
client_id: node-a
client_secret_file: SECRET
root_certificates: CERT
proxy: http://user:hidden@proxy.example:3128
tls_cert: CERT
tls_key: KEY
allow:
  emails: [ada@hospital.example]
  claims: {groups: [researchers]}
`
	for what, x := range map[string]struct {
		address, from, to string // an edit of the whole
		refused           string // empty: it listens
	}{
		"whole":                     {"127.0.0.1:0", "", "", ""},
		"on every address":          {"0.0.0.0:0", "", "", ""},
		"no login, another address": {"0.0.0.0:0", whole, "", "there is no login"},
		"no login, loopback":        {"127.0.0.1:0", whole, "", ""},
		"nobody":                    {"127.0.0.1:0", "allow:\n  emails: [ada@hospital.example]\n  claims: {groups: [researchers]}\n", "", "nobody could log in"},
		"an unknown field":          {"127.0.0.1:0", "client_id", "client-id", "unknown field"},
		"an unknown field of allow": {"127.0.0.1:0", "emails", "mails", "unknown field"},
		"no issuer":                 {"127.0.0.1:0", "issuer: https://login.example\n", "", "issuer"},
		"issuer over HTTP":          {"127.0.0.1:0", "https://login", "http://login", "no https address"},
		"no client":                 {"127.0.0.1:0", "client_id: node-a\n", "", "client_id"},
		"no certificate":            {"127.0.0.1:0", "tls_cert: CERT\n", "", "no tls_cert"},
		"no key":                    {"127.0.0.1:0", "tls_key: KEY\n", "", "no tls_key"},
		"the key twice":             {"127.0.0.1:0", "tls_cert: CERT", "tls_cert: KEY", "tls:"},
		"no root":                   {"127.0.0.1:0", "root_certificates: CERT", "root_certificates: KEY", "no certificate"},
		"an empty secret":           {"127.0.0.1:0", "SECRET", empty, "is empty"},
		"a missing secret":          {"127.0.0.1:0", "SECRET", filepath.Join(dir, "none"), "no such file"},
		"a proxy of no kind":        {"127.0.0.1:0", "http://user:hidden@proxy.example:3128", "proxy.example:hidden", "proxy is no address"},
	} {
		text := strings.Replace(whole, x.from, x.to, 1)
		text = strings.NewReplacer("SECRET", secret, "CERT", certFile, "KEY", keyFile).Replace(text)
		s := nodeSettings{FlowerCtl: x.address}
		if text != "" {
			text = "flower_login:\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
		}
		err := config.Decode([]byte(text), &s)
		if err == nil {
			var l *flowercontrol.Listener
			if l, err = s.listenFlower(slog.New(slog.DiscardHandler)); err == nil {
				l.Close()
			}
		}
		if x.refused == "" && err != nil || x.refused != "" && (err == nil || !strings.Contains(err.Error(), x.refused)) {
			t.Errorf("%s: %v, want %q", what, err, x.refused)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "hidden")) {
			t.Errorf("%s: a secret is in %v", what, err)
		}
	}

	// What the documentation shows is taken.
	page, err := os.ReadFile("../../docs/flower.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\nflower_control: 10.")
	block, _, found := strings.Cut("flower_control: 10."+block, "```")
	var shown nodeSettings
	if err := config.Decode([]byte(block), &shown); err != nil || !found || shown.Login == nil || len(shown.Login.Allow.Claims["groups"]) != 1 {
		t.Errorf("docs/flower.md: %v, %+v", err, shown.Login)
	}
	shown.Login.ClientSecretFile, shown.Login.RootCertificates, shown.Login.TLSCert, shown.Login.TLSKey = secret, certFile, certFile, keyFile
	if _, _, err := shown.Login.open(slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("docs/flower.md: %v", err)
	}

	// A login without an address is a mistake.
	root := newRootCommand()
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	file := write("node.yaml", []byte("link: x:1\nkey: k\npolicy: p\ndata: "+dir+"\nflower_login:\n  issuer: https://login.example\n"))
	root.SetArgs([]string{"node", "--config", file})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("%v", err)
	}
}
