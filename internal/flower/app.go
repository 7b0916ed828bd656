package flower

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
)

// Errors of [App.Do], and of what the transport calls.
var (
	// ErrFinished: the process has pushed its outputs and takes no more
	// instructions; the one of this Do was not handed out. Start another process.
	ErrFinished = errors.New("flower: app process has finished")
	// ErrStopped: the App was closed, or its last instruction was abandoned.
	ErrStopped = errors.New("flower: app is stopped")
	// ErrToken: a call with no valid token.
	ErrToken = errors.New("flower: invalid token")
	// ErrRefused is wrapped by every error about something that the process pushed
	// and that is not as it must be.
	ErrRefused = errors.New("flower: app process refused")
)

// Limits of what one process may push, with the values used where zero.
const (
	DefaultMaxReply = 1 << 30  // bytes of all objects of a reply ([Instruction])
	DefaultMaxState = 64 << 20 // bytes of a context's state
	MaxObject       = 32 << 20 // bytes of one object; Flower's largest chunks are 20 MiB
	MaxObjects      = 1 << 16  // objects of one message
)

// Config describes the app that one process runs. It is not changed after
// [NewApp].
type Config struct {
	RunID, NodeID uint64
	// NodeConfig and RunConfig are what the app reads as its context: values are
	// bool, int64, float64 or string.
	NodeConfig, RunConfig map[string]any
	// State is the encoded flwr.proto.RecordDict that the last process of this run
	// left ([App.State]), or nil.
	State []byte

	// FabID, FabVersion and Fab are the app bundle. Flower's own processes cannot
	// run without one; others ignore it.
	FabID, FabVersion string
	Fab               []byte

	MaxState int // bytes; DefaultMaxState if 0

	Now func() time.Time // time.Now if nil
}

// App is one ClientApp process as the node sees it. It is safe for concurrent
// use; instructions go one after another.
type App struct {
	config Config
	token  string
	offers chan *task    // Do hands a task to the process's held PullMessage
	turn   chan struct{} // held by the Do that is under way
	done   chan struct{} // closed by PushOutputs and Close
	again  chan struct{} // closed when a message is asked for after a reply

	mu      sync.Mutex
	current *task
	asked   bool  // again is closed
	ended   error // why done is closed
	state   []byte
}

// NewApp returns an App with a new token. It fails if a config value has
// another type than those allowed.
func NewApp(c Config) (*App, error) {
	for _, m := range []map[string]any{c.NodeConfig, c.RunConfig} {
		for k, v := range m {
			switch v.(type) {
			case bool, int64, float64, string:
			default:
				return nil, fmt.Errorf("flower: config value %.80q has type %T, want bool, int64, float64 or string", k, v)
			}
		}
	}
	if c.MaxState == 0 {
		c.MaxState = DefaultMaxState
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &App{
		config: c, token: newToken(), state: c.State,
		offers: make(chan *task), turn: make(chan struct{}, 1), done: make(chan struct{}), again: make(chan struct{}),
	}, nil
}

// Config returns the app's configuration; its maps and slices are not to be
// changed.
func (a *App) Config() Config { return a.config }

// Token returns the secret that the process shows with its calls: 256 hex
// digits, new for each App. It is never logged.
func (a *App) Token() string { return a.token }

// Done is closed when the process has pushed its outputs, or when the App was
// closed.
func (a *App) Done() <-chan struct{} { return a.done }

// State returns the encoded state (flwr.proto.RecordDict) that the process left,
// or the one that it was given. It stays on the node.
func (a *App) State() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// Again is closed when the process has replied, and asks for another message.
func (a *App) Again() <-chan struct{} { return a.again }

// Left returns nil if [App.State] is what the process leaves after its reply: it has pushed
// its outputs, or it asks for another message, and so leaves none. Any other process owes
// its state, and the error wraps [ErrRefused].
func (a *App) Left() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case errors.Is(a.ended, ErrFinished), a.asked:
		return nil
	case errors.Is(a.ended, ErrRefused):
		return a.ended
	}
	return fmt.Errorf("%w: a reply without the state that follows it", ErrRefused)
}

// Close ends the App: calls of the process fail, and a [App.Do] under way
// returns [ErrStopped]. The caller closes it when the process is gone; without a
// reply the node then answers with [CodeCrashed]. Close may be called again.
func (a *App) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end(ErrStopped)
}

// end closes done, once; a.mu is held.
func (a *App) end(why error) {
	if a.ended == nil {
		a.ended = why
		close(a.done)
	}
}

// Do gives the process one instruction and waits for its reply. It waits too
// until the process asks for one: the caller bounds it by ctx. An instruction
// that was handed out and then abandoned leaves the process in an unknown place,
// so that the App is closed. A reply with an error is a [*Failure].
func (a *App) Do(ctx context.Context, in Instruction) (*Reply, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t, err := a.newTask(in)
	if err != nil {
		return nil, err
	}
	select {
	case a.offers <- t:
	case <-a.done:
		return nil, a.why()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-t.answered:
	case <-a.done:
		select {
		case <-t.answered: // the process finished right after its reply
		default:
			if err := a.why(); !errors.Is(err, ErrFinished) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: outputs without a reply", ErrRefused)
		}
	case <-ctx.Done():
		a.Close()
		return nil, ctx.Err()
	}
	return t.reply, t.err
}

func (a *App) why() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

// Authenticate returns [ErrToken] unless token is the app's, and the reason if
// the App has ended. It takes the same time for every wrong token.
func (a *App) Authenticate(token string) error {
	if !equalTokens(token, a.token) {
		return ErrToken
	}
	return a.why()
}

// PullMessage returns the instruction that the process is to work on. It waits
// until there is one. Called again before the reply, it returns the same: the
// answer to the first call may have been lost.
func (a *App) PullMessage(ctx context.Context) (object.Metadata, Tree, error) {
	a.mu.Lock()
	t, ended := a.current, a.ended
	if !a.asked && t != nil && t.isAnswered() {
		a.asked = true
		close(a.again)
	}
	a.mu.Unlock()
	if ended != nil {
		return object.Metadata{}, Tree{}, ended
	}
	if t != nil && !t.isAnswered() {
		return t.metadata, t.tree, nil
	}
	select {
	case t = <-a.offers:
	case <-a.done:
		return object.Metadata{}, Tree{}, a.why()
	case <-ctx.Done():
		return object.Metadata{}, Tree{}, ctx.Err()
	}
	a.mu.Lock()
	a.current = t
	a.mu.Unlock()
	return t.metadata, t.tree, nil
}

// PullObject returns an object of the instruction, or nil if it has none of
// that id.
func (a *App) PullObject(id object.ID) ([]byte, error) {
	t, err := a.working()
	if err != nil {
		return nil, err
	}
	return t.object(id)
}

// Confirm says that the process has all objects of the instruction.
func (a *App) Confirm() error {
	t, err := a.working()
	if err != nil {
		return err
	}
	t.confirm()
	return nil
}

// PushMessage begins the reply: its metadata, and either the tree of its
// objects or an error. It returns the objects that the process is to push.
func (a *App) PushMessage(m object.Metadata, tree Tree, failed *Failure) ([]object.ID, error) {
	t, err := a.working()
	if err != nil {
		return nil, err
	}
	missing, err := t.begin(m, tree, failed)
	if err != nil {
		t.fail(err)
	}
	return missing, err
}

// PushObject takes one object of the reply. The content is kept: the caller
// must not change it. When the last one has arrived and all are as they must be,
// [App.Do] returns.
func (a *App) PushObject(id object.ID, content []byte) error {
	t, err := a.working()
	if err != nil {
		return err
	}
	if err = t.take(id, content); err != nil {
		t.fail(err)
	}
	return err
}

// PushOutputs takes the state that the process leaves, and ends it. The state is
// an encoded flwr.proto.RecordDict, kept as it is.
func (a *App) PushOutputs(state []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended != nil {
		return a.ended
	}
	if len(state) > a.config.MaxState {
		err := fmt.Errorf("%w: state of %d bytes, limit %d", ErrRefused, len(state), a.config.MaxState)
		a.end(fmt.Errorf("%w: %w", ErrStopped, err))
		return err
	}
	a.state = state
	a.end(ErrFinished)
	return nil
}

// working returns the task that the process has pulled.
func (a *App) working() (*task, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended != nil {
		return nil, a.ended
	}
	if a.current == nil {
		return nil, fmt.Errorf("%w: no message was pulled", ErrRefused)
	}
	return a.current, nil
}
