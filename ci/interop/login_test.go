package interop

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/flower/control/auth"
)

// TestLogin has people log in with Flower's command, of each dialect, at a node that is
// reached over TLS: against a process that is an OpenID Connect provider, where they
// approve as a browser does. They run, see their own runs alone, and stay logged in when
// their tokens have expired.
func TestLogin(t *testing.T) {
	for _, env := range ends(t) {
		t.Run(filepath.Base(env), func(t *testing.T) { login(t, env) })
	}
}

// tokenLife is that of ID tokens at the provider. A node allows a minute beyond it.
const tokenLife = 20 * time.Second

func login(t *testing.T, env string) {
	ada := newUser(t, env)
	ca := newAuthority(t, ada.home)
	issuer := startProvider(t, ca)
	// ahead is how far the node's clock is before the provider's.
	var ahead atomic.Int64
	log := &locked{}
	l, err := auth.New(auth.Config{Issuer: issuer, ClientID: "node-a", Secret: "a secret of two", Allow: auth.Allow{Subjects: []string{"ada"}, Emails: []string{"bob@hospital.example"}},
		Roots: ca.pool, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	at, err := flowercontrol.ListenTLS("127.0.0.1:0", ca.certificate, l)
	if err != nil {
		t.Fatal(err)
	}
	how := fmt.Sprintf("root-certificates = %q", ca.file)
	bob, eve := &user{t: t, env: env, home: t.TempDir()}, &user{t: t, env: env, home: t.TempDir()}
	for _, u := range []*user{ada, bob, eve} {
		u.connect(at, how)
	}
	app := quickstart(t)
	file, digest := ada.build(app)
	_, approve := ada.federation(digest, [3]string{env, env, env}, at)
	approve(file)

	const first = "Please run `flwr login`"
	ada.refused(first, "ls", "my-node")
	ada.refused(first, "run", app, "my-node")
	ada.logIn(ca, "ada", "Login successful")
	begun := time.Now()
	out := ada.flwr("run", app, "my-node", "--stream", "-c", "num-server-rounds=1")
	if !strings.Contains(out, "Run completed.") {
		t.Fatalf("flwr run:\n%s", out)
	}
	runs := ada.listed()
	if len(runs) != 1 || runs[0].Status != "finished:completed" {
		t.Fatalf("flwr ls of ada: %+v", runs)
	}

	// Another account sees nothing of it, and cannot touch it.
	id := runs[0].ID
	bob.refused(first, "log", id, "my-node")
	bob.logIn(ca, "bob", "Login successful")
	if runs := bob.listed(); len(runs) != 0 {
		t.Errorf("flwr ls of bob: %+v", runs)
	}
	for _, call := range []string{"log", "stop", "pull"} {
		bob.refused("Run ID not found", call, id, "my-node")
	}
	if out := ada.flwr("log", id, "my-node"); !strings.Contains(out, "Run completed.") {
		t.Errorf("flwr log of ada:\n%s", out)
	}
	eve.logIn(ca, "eve", "the owner of this node has not allowed eve at "+issuer)
	eve.refused(first, "ls", "my-node")

	// What has expired is renewed, and the command keeps what it gets.
	before := ada.tokens()
	ahead.Store(int64(time.Minute))
	time.Sleep(time.Until(begun.Add(tokenLife + time.Second)))
	if runs := ada.listed(); len(runs) != 1 {
		t.Errorf("flwr ls of ada, later: %+v", runs)
	}
	after := ada.tokens()
	if before[0] == after[0] {
		t.Error("the command kept its old access token")
	}
	// A token that nobody signed, and no way to a new one.
	ada.keep(after[0]+"x", "none")
	ada.refused(first, "ls", "my-node")

	for _, token := range append(before, append(after, append(bob.tokens(), "a secret of two")...)...) {
		if strings.Contains(log.String(), token) {
			t.Error("a token is in the node's log")
		}
	}
	t.Logf("what the node's log has:\n%s", log.String())
}

// logIn runs flwr login, approves it as a browser does, and wants some words at its end.
func (u *user) logIn(ca *authority, name, words string) {
	u.t.Helper()
	c := u.start(filepath.Join(u.env, "bin", "flwr"), "login", "my-node")
	r, w, err := os.Pipe()
	if err != nil {
		u.t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		u.t.Fatal(err)
	}
	w.Close()
	var out bytes.Buffer
	approved, said := false, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Fprintln(&out, lines.Text())
		if !said && strings.Contains(plain(out.String()), words) {
			said = true
			// The command over gRPC, of a login that fails, has its word and does not end:
			// it does so with a server of Flower's kind too.
			defer time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() }).Stop()
		}
		if address := strings.TrimSpace(lines.Text()); strings.HasPrefix(address, "https://") && !approved {
			approved = true
			if err := browse(ca, address, name); err != nil {
				_ = c.Process.Kill()
				u.t.Errorf("the browser: %v", err)
			}
		}
	}
	_ = c.Wait() // the words say how it ended
	if !approved || !said {
		u.t.Fatalf("flwr login as %s: want %q in\n%s", name, words, out.String())
	}
}

// browse approves a login on the provider's pages.
func browse(ca *authority, address, name string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	c := &http.Client{Jar: jar, Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, DisableKeepAlives: true}}
	page := func(res *http.Response, err error) (string, error) {
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			return "", fmt.Errorf("%s: %s", res.Request.URL, res.Status)
		}
		return string(b), err
	}
	form, err := page(c.Get(address))
	if err != nil {
		return err
	}
	code := regexp.MustCompile(`name="user_code" value="([^"]+)"`).FindStringSubmatch(form)
	if code == nil {
		return fmt.Errorf("%s shows no form for a user code:\n%s", address, form)
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if _, err := page(c.PostForm(u.ResolveReference(&url.URL{Path: "/device/login"}).String(), url.Values{"user_code": {code[1]}, "username": {name}, "password": {"verysecure"}})); err != nil {
		return err
	}
	end, err := page(c.Get(u.ResolveReference(&url.URL{Path: "/device/confirm", RawQuery: "action=allowed"}).String()))
	if err == nil && !strings.Contains(end, "authorization allowed") {
		err = fmt.Errorf("the confirmation shows:\n%s", end)
	}
	return err
}

// credentials is the file in which Flower's command keeps tokens.
func (u *user) credentials() string { return filepath.Join(u.home, "flwr", "credentials.yaml") }

var credential = regexp.MustCompile(`(?m)^(flower\.account-auth\.\S+\.oidc-(access|refresh)-token): *(\S+)$`)

// tokens are the access and the refresh token that the command keeps.
func (u *user) tokens() []string {
	u.t.Helper()
	b, err := os.ReadFile(u.credentials())
	if err != nil {
		u.t.Fatal(err)
	}
	out := make([]string, 2)
	for _, m := range credential.FindAllSubmatch(b, -1) {
		token, err := base64.StdEncoding.DecodeString(string(m[3]))
		if err != nil {
			u.t.Fatal(err)
		}
		if string(m[2]) == "access" {
			out[0] = string(token)
		} else {
			out[1] = string(token)
		}
	}
	if out[0] == "" || out[1] == "" {
		u.t.Fatalf("%s holds no tokens", u.credentials())
	}
	return out
}

// keep puts tokens where the command finds them.
func (u *user) keep(access, refresh string) {
	u.t.Helper()
	b, err := os.ReadFile(u.credentials())
	if err != nil {
		u.t.Fatal(err)
	}
	b = credential.ReplaceAllFunc(b, func(line []byte) []byte {
		m := credential.FindSubmatch(line)
		value := refresh
		if string(m[2]) == "access" {
			value = access
		}
		return fmt.Appendf(nil, "%s: %s", m[1], base64.StdEncoding.EncodeToString([]byte(value)))
	})
	if err := os.WriteFile(u.credentials(), b, 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// startProvider returns the issuer of a provider that is a process of its own.
func startProvider(t *testing.T, ca *authority) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "provider")
	if out, err := exec.Command("go", "build", "-C", "provider", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := exec.Command(program, "-cert", ca.certFile, "-key", ca.keyFile, "-client", "node-a", "-secret", "a secret of two", "-life", tokenLife.String())
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	issuer, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(issuer)
}

// authority is a company's own, and a certificate of it for this machine.
type authority struct {
	pool                    *x509.CertPool
	certificate             tls.Certificate
	file, certFile, keyFile string // the authority's certificate; the machine's certificate and key
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	made := func(serial int64, name string, edit func(*x509.Certificate), parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		edit(c)
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	root, rootKey := made(1, "company CA", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	}, nil, nil)
	leaf, leafKey := made(2, "node", func(c *x509.Certificate) {
		c.IPAddresses, c.KeyUsage, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}, root, rootKey)
	a := &authority{pool: x509.NewCertPool(), file: filepath.Join(dir, "ca.pem"), certFile: filepath.Join(dir, "node.pem"), keyFile: filepath.Join(dir, "node.key")}
	a.pool.AddCert(root)
	write := func(file, kind string, der []byte) {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write(a.file, "CERTIFICATE", root.Raw)
	write(a.certFile, "CERTIFICATE", leaf.Raw)
	write(a.keyFile, "PRIVATE KEY", key)
	if a.certificate, err = tls.LoadX509KeyPair(a.certFile, a.keyFile); err != nil {
		t.Fatal(err)
	}
	return a
}

// locked is a buffer that several write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
