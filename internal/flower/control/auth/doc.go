// Package auth says who calls a node's Control API: accounts of the member's own OpenID
// Connect provider. Flower's command logs in by the device authorization grant (RFC 8628)
// and shows what it got with every call; a [Login] asks the provider for it and verifies
// it.
//
// What the command keeps and shows as its access token is the provider's ID token: a
// signed word about who it is, for this node's client alone. The access token of the
// provider, which may open more than this node, is not handed out.
//
// Tokens are in no error and no line of a log.
package auth
