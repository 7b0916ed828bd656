package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
)

// unixPrefix starts the address of a node's control socket.
const unixPrefix = "unix://"

// maxSocketPath is what sockaddr_un holds on Linux, with its closing zero byte.
const maxSocketPath = 107

// socketPath returns the path of a control address.
func socketPath(address string) (string, error) {
	path, ok := strings.CutPrefix(address, unixPrefix)
	if !ok || !filepath.IsAbs(path) {
		return "", usagef("control address %q, want unix:///path", address)
	}
	if len(path) > maxSocketPath {
		return "", hinted(exitFail, fmt.Errorf("control socket %s: the path has %d bytes, limit %d", path, len(path), maxSocketPath), "name a shorter one with --control")
	}
	return path, nil
}

// listenControl opens a node's control socket. It is made under another name, in a
// directory of its own, and moved: so it is never there with wider permissions than
// the owner's, and it replaces the socket that a killed node left.
func listenControl(address string) (l net.Listener, release func(), err error) {
	path, err := socketPath(address)
	if err != nil {
		return nil, nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, nil, fmt.Errorf("control socket %s: another node answers there", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".c")
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	defer os.Remove(dir)
	made := filepath.Join(dir, "s")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	u.SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("control socket: %w", err), u.Close(), os.Remove(made))
	}
	return u, func() { u.Close(); os.Remove(path) }, nil
}

// dialControl returns a client of a node's control socket. The caller closes conn.
func dialControl(address string) (client concordatv1.ControlClient, conn *grpc.ClientConn, err error) {
	path, err := socketPath(address)
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, nil, hinted(exitFail, err, "say with --control where the node's socket is; the node makes it when it starts")
	}
	conn, err = grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, nil, err
	}
	return concordatv1.NewControlClient(conn), conn, nil
}

// said words an error of a gRPC call by its message alone.
func said(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}
