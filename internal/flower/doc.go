// Package flower speaks to Flower's app processes. It is the node's side: one
// [App] is one ClientApp process, which is offered instructions and answers each
// with records or with an error. ServerApps are served by internal/flower/serverapp,
// and the processes of both are started by internal/flower/process.
//
// Start with [NewApp] and [App.Do]. The process itself is started by the caller,
// with the app's token and the address of a listener on which a transport serves
// the App: internal/flower/grpcapp speaks Flower's ClientAppIo (1.26 to 1.29),
// internal/flower/httpapp its Runtime API (1.35 and later).
//
// # One process, one or many messages
//
// Flower's own processes take one instruction, push their outputs and exit: after
// that [App.Do] returns [ErrFinished], and the caller starts the next process with
// a new App and the state of the last ([App.State]). A process may as well ask for
// the next message instead, and is held until there is one. Both are the same to
// the caller: on ErrFinished, start another. A process that is started early, and
// waits, hides its start-up.
//
// # What is believed
//
// The process runs an app that may be hostile. Every object that it pushes is
// verified against its id, its place in the announced tree and the limits of the
// [Config], before [App.Do] returns it. Its errors leave as a code and a type name
// ([Failure]).
//
// The package starts no process, opens no socket and knows no gRPC.
package flower
