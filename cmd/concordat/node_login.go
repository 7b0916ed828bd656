package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/concordat/concordat/internal/daemon/keyfile"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/flower/control/auth"
)

// flowerLogin is who may use a node's flower_control, and how the node shows itself to
// them.
type flowerLogin struct {
	Issuer           string     `yaml:"issuer"`    // of the OpenID Connect provider, as it calls itself
	ClientID         string     `yaml:"client_id"` // of this node, at the provider
	ClientSecretFile string     `yaml:"client_secret_file,omitempty"`
	Scopes           []string   `yaml:"scopes,omitempty"`            // beside openid, offline_access and, for allow.emails, email
	RootCertificates string     `yaml:"root_certificates,omitempty"` // PEM file, of the provider's certificate; empty: the system's
	Proxy            string     `yaml:"proxy,omitempty"`             // "http://[user:password@]host:port" on the way to the provider
	Allow            auth.Allow `yaml:"allow"`
	TLSCert          string     `yaml:"tls_cert"` // PEM files, of this node: Flower's command logs in over TLS alone
	TLSKey           string     `yaml:"tls_key"`
}

// maxPEM bounds a file of certificates.
const maxPEM = 1 << 20

// listenFlower opens the address for the flwr command. Without a login that is an address
// of this machine alone.
func (s nodeSettings) listenFlower(log *slog.Logger) (*flowercontrol.Listener, error) {
	if s.Login == nil {
		return flowercontrol.Listen(s.FlowerCtl)
	}
	login, certificate, err := s.Login.open(log)
	if err != nil {
		return nil, fmt.Errorf("flower_login: %w", err)
	}
	return flowercontrol.ListenTLS(s.FlowerCtl, certificate, login)
}

// open reads the files that f names.
func (f *flowerLogin) open(log *slog.Logger) (login *auth.Login, certificate tls.Certificate, err error) {
	c := auth.Config{Issuer: f.Issuer, ClientID: f.ClientID, Scopes: f.Scopes, Allow: f.Allow, Now: time.Now, Log: log}
	if f.ClientSecretFile != "" {
		b, err := readFile(f.ClientSecretFile, keyfile.MaxSize)
		if err != nil {
			return nil, certificate, err
		}
		if c.Secret = auth.Token(strings.TrimSpace(string(b))); c.Secret == "" {
			return nil, certificate, fmt.Errorf("%s is empty", f.ClientSecretFile)
		}
	}
	if f.RootCertificates != "" {
		b, err := readFile(f.RootCertificates, maxPEM)
		if err != nil {
			return nil, certificate, err
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(b) {
			return nil, certificate, fmt.Errorf("%s has no certificate", f.RootCertificates)
		}
	}
	if f.Proxy != "" {
		if c.Proxy, err = url.Parse(f.Proxy); err != nil || c.Proxy.Scheme != "http" || c.Proxy.Host == "" {
			return nil, certificate, fmt.Errorf("proxy is no address like http://proxy.example:3128") // the value may hold a password
		}
	}
	if login, err = auth.New(c); err != nil {
		return nil, certificate, err
	}
	for name, file := range map[string]string{"tls_cert": f.TLSCert, "tls_key": f.TLSKey} {
		if file == "" {
			return nil, certificate, fmt.Errorf("no %s: Flower's command logs in over TLS alone", name)
		}
	}
	cert, err := readFile(f.TLSCert, maxPEM)
	if err != nil {
		return nil, certificate, err
	}
	key, err := readFile(f.TLSKey, maxPEM)
	if err != nil {
		return nil, certificate, err
	}
	if certificate, err = tls.X509KeyPair(cert, key); err != nil {
		return nil, certificate, fmt.Errorf("%s, %s: %w", f.TLSCert, f.TLSKey, err)
	}
	return login, certificate, nil
}
