// Package clientapp lets a Go program be a ClientApp: it speaks Flower's
// ClientAppIo to the node that started it, as flwr-clientapp does. Start with
// [Run].
//
// Unlike flwr-clientapp it stays for the next message after a reply, until the
// node says that the run has stopped. It loads no app bundle: the program is the
// app.
package clientapp
