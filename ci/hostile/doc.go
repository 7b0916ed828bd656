// Package hostile is what stands between the parties of a federation and an honest
// link, and behaves as a link may that nobody trusts: it drops, delays, repeats,
// reorders and invents messages, withholds the log, serves other chunks than were
// asked for, and remembers everything that it saw.
//
// Start with [New], give every party a connection of [Link.Conn] (ci.Through does),
// and set rules. [Node] is the other enemy: a member's node that speaks the protocol
// by hand and says what it likes.
//
// It breaks no cryptography, and it is for tests alone.
package hostile
