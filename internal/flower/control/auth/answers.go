package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// parseFacts reads a provider's metadata, and the address of its keys.
func parseFacts(b []byte, issuer string) (f *facts, jwks string, err error) {
	var m struct {
		Issuer  string   `json:"issuer"`
		Token   string   `json:"token_endpoint"`
		Device  string   `json:"device_authorization_endpoint"`
		Keys    string   `json:"jwks_uri"`
		Scopes  []string `json:"scopes_supported"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if json.Unmarshal(b, &m) != nil {
		return nil, "", errors.New("its openid-configuration is no JSON object of that kind")
	}
	if m.Issuer != issuer {
		return nil, "", fmt.Errorf("it calls itself %.200q", m.Issuer)
	}
	if m.Device == "" {
		return nil, "", errors.New("it has no device_authorization_endpoint (RFC 8628), by which Flower's command logs in")
	}
	for _, a := range []string{m.Token, m.Device, m.Keys} {
		if err := secure(a); err != nil {
			return nil, "", err
		}
	}
	post := slices.Contains(m.Methods, "client_secret_post") && !slices.Contains(m.Methods, "client_secret_basic")
	return &facts{token: m.Token, device: m.Device, scopes: m.Scopes, inBody: post}, m.Keys, nil
}

// secure says why an address is none to send secrets to, or a user.
func secure(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(address) > 2048 || !printable(address) {
		return fmt.Errorf("%.200q is no https address", address)
	}
	return nil
}

// granted is an answer of the token endpoint (RFC 6749, section 5): tokens, or a fault.
type granted struct {
	id, refresh Token
	fault       string // such as "authorization_pending"; empty: none
}

func parseGranted(code int, b []byte) (granted, error) {
	var m struct {
		ID      string `json:"id_token"`
		Refresh string `json:"refresh_token"`
		Fault   string `json:"error"`
	}
	if json.Unmarshal(b, &m) != nil {
		return granted{}, fmt.Errorf("status %d with no answer of the token endpoint", code)
	}
	if code == http.StatusOK && m.Fault == "" {
		return granted{id: Token(m.ID), refresh: Token(m.Refresh)}, nil
	}
	if m.Fault == "" || len(m.Fault) > 64 || strings.Trim(m.Fault, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return granted{}, fmt.Errorf("status %d with no error that RFC 6749 knows", code)
	}
	return granted{fault: m.Fault}, nil
}

// device is an answer of the device authorization endpoint (RFC 8628, section 3.2).
type device struct {
	code              Token
	address           string // for the user, with the code in it
	expires, interval time.Duration
}

// Bounds of a login: what a provider may say, and what is taken where it says nothing.
const (
	maxExpiry       = 30 * time.Minute
	defaultInterval = 5 * time.Second // RFC 8628, section 3.2
	maxInterval     = 1 * time.Minute
	moreInterval    = 5 * time.Second // RFC 8628, section 3.5
)

func parseDevice(b []byte) (device, error) {
	var m struct {
		Code     string  `json:"device_code"`
		User     string  `json:"user_code"`
		Address  string  `json:"verification_uri"`
		Complete string  `json:"verification_uri_complete"`
		Expires  float64 `json:"expires_in"`
		Interval float64 `json:"interval"`
	}
	if json.Unmarshal(b, &m) != nil || m.Code == "" || len(m.Code) > maxToken {
		return device{}, errors.New("no answer of the device authorization endpoint")
	}
	d := device{code: Token(m.Code), address: m.Complete, interval: defaultInterval, expires: maxExpiry}
	if d.address == "" {
		// Flower's command shows the user an address and nothing else. A fragment is seen,
		// and not sent.
		if m.User == "" || len(m.User) > 64 || !printable(m.User) || strings.Contains(m.Address, "#") {
			return device{}, errors.New("no verification_uri_complete, and no user_code")
		}
		d.address = m.Address + "#your-code-is:" + url.PathEscape(m.User)
	}
	if err := secure(d.address); err != nil {
		return device{}, err
	}
	if m.Expires < 1 {
		return device{}, errors.New("the login expires at once")
	}
	if m.Expires < maxExpiry.Seconds() {
		d.expires = time.Duration(m.Expires) * time.Second
	}
	if m.Interval >= 1 {
		d.interval = time.Duration(min(m.Interval, maxInterval.Seconds())) * time.Second
	}
	return d, nil
}
