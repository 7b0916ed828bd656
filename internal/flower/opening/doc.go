// Package opening runs an unmodified ServerApp as far as its first message. Where a
// native strategy aggregates, the ServerApp steers nothing; but it is what says with
// which arrays training begins, and which settings ClientApps get. Its first train
// message holds both.
//
// [Opening] is the server of such a process (flwr-serverapp of versions 1.26 to 1.29,
// dialect A's ServerAppIo): it has as many nodes as the federation has members, takes
// one batch of messages, which must be the same for every node, and answers none. The
// process is ended then. It sees no data of any member: it runs where the user who
// asks for the run is, confined, before the run exists.
package opening
