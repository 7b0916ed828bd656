package dial

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strings"
)

// maxProxyAnswer bounds the head of a proxy's answer to CONNECT.
const maxProxyAnswer = 16 << 10

// dialerOf returns how to open the TCP connection to an address: directly, or by
// CONNECT (RFC 9110 9.3.6) through the proxy at the URL.
func dialerOf(proxy string) (func(context.Context, string) (net.Conn, error), error) {
	var d net.Dialer
	if proxy == "" {
		return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }, nil
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return nil, errors.New(`dial: proxy is not "http://[user:password@]host:port"`) // its text may hold a password
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, "tcp", host)
		if err != nil {
			return nil, fmt.Errorf("dial: proxy: %w", err)
		}
		// The context bounds the exchange, and nothing after it.
		stop := context.AfterFunc(ctx, func() { c.Close() })
		r, err := connect(c, addr, u.User)
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("dial: proxy %s: %w", host, err)
		}
		return &buffered{c, r}, nil
	}, nil
}

// connect asks for a tunnel to addr and returns what is left to read.
func connect(c net.Conn, addr string, user *url.Userinfo) (io.Reader, error) {
	req := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if user != nil {
		password, _ := user.Password()
		req += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(c, req+"\r\n"); err != nil {
		return nil, err
	}
	// What comes after the head is TLS, and the link speaks second: nothing that
	// belongs to the tunnel is in r yet unless the proxy misbehaves; it is kept anyway.
	r := bufio.NewReaderSize(c, 4<<10)
	head := textproto.NewReader(bufio.NewReader(&oneByte{r, maxProxyAnswer}))
	line, err := head.ReadLine()
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(proto, "HTTP/1.") || len(code) != 3 || code[0] != '2' {
		return nil, fmt.Errorf("refused with %.80q", line)
	}
	if _, err := head.ReadMIMEHeader(); err != nil {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	return r, nil
}

// oneByte reads single bytes, so that a buffer above it never takes what comes
// after the head, and no more than n of them.
type oneByte struct {
	r *bufio.Reader
	n int
}

func (o *oneByte) Read(p []byte) (int, error) {
	if o.n == 0 {
		return 0, errors.New("answer is too long")
	}
	if len(p) == 0 {
		return 0, nil
	}
	b, err := o.r.ReadByte()
	if err != nil {
		return 0, err
	}
	o.n--
	p[0] = b
	return 1, nil
}

// buffered is a connection whose first bytes were read ahead.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
