// Command provider is an OpenID Connect provider for the tests of logins: the one that
// the zitadel/oidc project makes of its library (a certified one), with this test's users
// and one client. It is a module of its own, so that nothing of it gets into what is
// released.
//
// It listens on 127.0.0.1 and prints its address, which is its issuer, on a line.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	certificate := flag.String("cert", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	clientID := flag.String("client", "", "id of the client")
	secret := flag.String("secret", "", "of the client")
	life := flag.Duration("life", time.Hour, "of ID tokens")
	flag.Parse()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := "https://" + l.Addr().String()
	clients := map[string]*storage.Client{*clientID: storage.DeviceClient(*clientID, *secret)}
	s := store{storage.NewStorageWithClients(users{}, clients), *life}
	h := exampleop.SetupServer(issuer, s, slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	fmt.Println(issuer)
	log.Fatal(http.ServeTLS(l, h, *certificate, *key))
}

// users are three people with one password. The device flow of the example makes the name
// that somebody logs in with the subject.
type users struct{}

func (users) GetUserByID(id string) *storage.User {
	if !slices.Contains([]string{"ada", "bob", "eve"}, id) {
		return nil
	}
	return &storage.User{ID: id, Username: id, Password: "verysecure", Email: id + "@hospital.example", EmailVerified: true}
}

func (u users) GetUserByUsername(name string) *storage.User { return u.GetUserByID(name) }

func (users) ExampleClientID() string { return "service" }

// store lets the client have refresh tokens, and ID tokens with an email.
type store struct {
	*storage.Storage
	life time.Duration
}

// CreateAccessAndRefreshTokens adds the client to tokens of the device flow, which the
// example leaves out: their refresh tokens would be nobody's.
func (s store) CreateAccessAndRefreshTokens(ctx context.Context, q op.TokenRequest, current string) (string, string, time.Time, error) {
	if d, ok := q.(*op.DeviceAuthorizationState); ok {
		q = &storage.AuthRequest{ApplicationID: d.ClientID, UserID: d.Subject, Scopes: d.Scopes}
	}
	return s.Storage.CreateAccessAndRefreshTokens(ctx, q, current)
}

func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c, s.life}, nil
}

type client struct {
	op.Client
	life time.Duration
}

func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
}

func (c client) IDTokenLifetime() time.Duration { return c.life }

func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
