package dial

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestParseAddress(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for in, ok := range map[string]bool{
		"link.example:7443": true, "[::1]:7443": true, "127.0.0.1:7443#sha256:" + hex: true,
		"": false, "host": false, ":7443": false, "host:": false, "host:0": false, "host:65536": false, "host:http": false,
		"host:1#": false, "host:1#sha256:": false, "host:1#sha256:" + hex[2:]: false, "host:1#sha512:" + hex: false, "host:1#" + hex: false,
		"host:1#sha256:" + hex + "#": false, "host:1#sha256:" + strings.Repeat("zz", 32): false, strings.Repeat("a", 1100) + ":1": false,
	} {
		a, err := ParseAddress(in)
		if (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
		if ok && a.String() != in {
			t.Errorf("%q: prints as %q", in, a)
		}
	}
}

// server answers gRPC health checks with a fresh self-signed certificate.
func server(t *testing.T, min uint16) (addr string, cert *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "link"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MaxVersion: min, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})))
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), cert
}

func check(t *testing.T, addr string, o Options) error {
	t.Helper()
	c, err := Dial(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(c).Check(ctx, new(healthpb.HealthCheckRequest))
	return err
}

func TestDial(t *testing.T) {
	t.Parallel()
	addr, cert := server(t, tls.VersionTLS13)
	pin := PinOf(cert)
	other := pin
	other[0] ^= 1
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	for name, c := range map[string]struct {
		addr string
		o    Options
		want string // in the error; empty: success
	}{
		"pinned":       {addr + "#" + pin.String(), Options{}, ""},
		"other pin":    {addr + "#" + other.String(), Options{}, ErrPin.Error()},
		"roots":        {addr, Options{Roots: roots}, ""},
		"system roots": {addr, Options{}, "certificate"},
	} {
		err := check(t, c.addr, c.o)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	old, oldCert := server(t, tls.VersionTLS12)
	if err := check(t, old+"#"+PinOf(oldCert).String(), Options{}); err == nil {
		t.Error("TLS 1.2 accepted")
	}
}

// TestProxy dials through a proxy that wants a password, and through ones that
// refuse, ramble and hang up.
func TestProxy(t *testing.T) {
	t.Parallel()
	addr, cert := server(t, tls.VersionTLS13)
	pinned := addr + "#" + PinOf(cert).String()
	proxy := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					r := bufio.NewReader(c)
					req, err := http.ReadRequest(r)
					if err != nil || req.Method != http.MethodConnect {
						return
					}
					if answer != "" {
						io.WriteString(c, answer)
						return
					}
					if req.Header.Get("Proxy-Authorization") != "Basic dTpwdw==" {
						io.WriteString(c, "HTTP/1.1 407 No\r\n\r\n")
						return
					}
					to, err := net.Dial("tcp", req.Host)
					if err != nil {
						return
					}
					defer to.Close()
					io.WriteString(c, "HTTP/1.1 200 OK\r\nVia: x\r\n\r\n")
					go io.Copy(to, r)
					io.Copy(c, to)
				}()
			}
		}()
		return l.Addr().String()
	}
	if err := check(t, pinned, Options{Proxy: "http://u:pw@" + proxy("")}); err != nil {
		t.Errorf("through the proxy: %v", err)
	}
	for name, p := range map[string]string{
		"wrong password": "http://u:no@" + proxy(""),
		"refusal":        "http://" + proxy("HTTP/1.1 403 Forbidden\r\n\r\n"),
		"endless head":   "http://" + proxy("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", 2*maxProxyAnswer)),
		"other protocol": "http://" + proxy("SSH-2.0-x\r\n\r\n"),
		"hang-up":        "http://" + proxy("HTTP/1.1 200 OK\r\n"),
	} {
		if err := check(t, pinned, Options{Proxy: p}); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
	for _, bad := range []string{"ftp://x", "http://", "://", "http://u:pw@x/path"} {
		if _, err := Dial(pinned, Options{Proxy: bad}); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("proxy %q: %v", bad, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("host:1#sha256:" + strings.Repeat("00", 32))
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if b, err := ParseAddress(a.String()); err != nil || b.String() != a.String() {
			t.Errorf("%q: %v", s, err)
		}
	})
}
