package clientapp

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
)

// session is the program's side of one connection.
type session struct {
	node    flwr.ClientAppIoClient
	token   string
	context *flwr.Context
}

// showToken sends the token with every call, as flwr does from 1.29 on.
func showToken(token string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, "flwr-app-token", token), method, req, reply, cc, opts...)
	}
}

// pull waits for a message and fetches all of it; every id is verified.
func (s *session) pull(ctx context.Context) (m Message, envelope object.Metadata, id object.ID, err error) {
	fail := func(err error) (Message, object.Metadata, object.ID, error) {
		return Message{}, object.Metadata{}, object.ID{}, err
	}
	r, err := s.node.PullMessage(ctx, &flwr.PullAppMessagesRequest{Token: s.token})
	if err != nil {
		return fail(err)
	}
	if len(r.MessageObjectTrees) != 1 {
		return fail(fmt.Errorf("%d messages, want 1", len(r.MessageObjectTrees)))
	}
	if id, err = object.ParseID(r.MessageObjectTrees[0].ObjectId); err != nil {
		return fail(err)
	}
	get := func(id object.ID) ([]byte, error) {
		r, err := s.node.PullObject(ctx, &flwr.PullObjectRequest{Node: s.me(), RunId: s.context.GetRunId(), ObjectId: id.String()})
		if err != nil {
			return nil, err
		}
		if !r.ObjectAvailable {
			return nil, errors.New("node lacks an object of its message")
		}
		return r.ObjectContent, nil
	}
	n, err := object.Inflate(id, get, object.Limits{Objects: maxObjects, Bytes: maxContent})
	if err != nil {
		return fail(err)
	}
	msg, ok := n.(*object.Message)
	if !ok || msg.Error != nil {
		return fail(errors.New("instruction without content"))
	}
	_, err = s.node.ConfirmMessageReceived(ctx, &flwr.ConfirmMessageReceivedRequest{Node: s.me(), RunId: s.context.GetRunId(), MessageObjectId: id.String()})
	if err != nil {
		return fail(err)
	}
	return Message{Type: msg.Metadata.Type, Group: msg.Metadata.Group, Content: msg.Content}, msg.Metadata, id, nil
}

// push announces a reply and sends the objects that the node asks for.
func (s *session) push(ctx context.Context, m *object.Message) error {
	objects, err := object.Objects(m)
	if err != nil {
		return err
	}
	byID := make(map[object.ID]object.Object, len(objects))
	for _, o := range objects {
		byID[o.ID] = o
	}
	id := objects[len(objects)-1].ID
	wire := &flwr.Message{Metadata: &flwr.Metadata{
		RunId: m.Metadata.RunID, MessageId: id.String(), SrcNodeId: m.Metadata.SrcNode, DstNodeId: m.Metadata.DstNode,
		ReplyToMessageId: m.Metadata.ReplyTo, GroupId: m.Metadata.Group, Ttl: m.Metadata.TTL, MessageType: m.Metadata.Type, CreatedAt: m.Metadata.CreatedAt,
	}}
	if m.Error != nil {
		wire.Error = &flwr.Error{Code: m.Error.Code, Reason: m.Error.Reason}
	} else {
		wire.Content = &flwr.RecordDict{} // present and empty: the records travel as objects
	}
	tree, err := tree(id, byID)
	if err != nil {
		return err
	}
	r, err := s.node.PushMessage(ctx, &flwr.PushAppMessagesRequest{
		Token: s.token, MessagesList: []*flwr.Message{wire}, MessageObjectTrees: []*flwr.ObjectTree{tree},
	})
	if err != nil {
		return err
	}
	for _, want := range r.ObjectsToPush {
		id, err := object.ParseID(want)
		if err != nil {
			return err
		}
		o, ok := byID[id]
		if !ok {
			return errors.New("node asks for an object that the reply has not")
		}
		p, err := s.node.PushObject(ctx, &flwr.PushObjectRequest{Node: s.me(), RunId: s.context.GetRunId(), ObjectId: want, ObjectContent: o.Raw})
		if err != nil {
			return err
		}
		if !p.Stored {
			return errors.New("node did not store an object")
		}
	}
	return nil
}

func (s *session) me() *flwr.Node { return &flwr.Node{NodeId: s.context.GetNodeId()} }

// tree lists an object and all below it, which are in byID.
func tree(id object.ID, byID map[object.ID]object.Object) (*flwr.ObjectTree, error) {
	h, err := object.ParseHead(byID[id].Raw)
	if err != nil {
		return nil, err
	}
	t := &flwr.ObjectTree{ObjectId: id.String()}
	for _, c := range h.Children {
		child, err := tree(c, byID)
		if err != nil {
			return nil, err
		}
		t.Children = append(t.Children, child)
	}
	return t, nil
}

// values converts a context's map; values of other types are left out.
func values(m map[string]*flwr.Scalar) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		switch v := v.GetScalar().(type) {
		case *flwr.Scalar_Bool:
			out[k] = v.Bool
		case *flwr.Scalar_Sint64:
			out[k] = v.Sint64
		case *flwr.Scalar_Double:
			out[k] = v.Double
		case *flwr.Scalar_String_:
			out[k] = v.String_
		}
	}
	return out
}
