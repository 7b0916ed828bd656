package appio

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// maxDepth is Message, RecordDict, record, Array, ArrayChunk.
const maxDepth = 5

func inputs(app *flower.App) (*flwr.PullAppInputsResponse, error) {
	c := app.Config()
	state := &flwr.RecordDict{}
	if err := proto.Unmarshal(app.State(), state); err != nil {
		return nil, fmt.Errorf("state of the app: %w", err)
	}
	run := &flwr.Run{
		RunId: c.RunID, FabId: c.FabID, FabVersion: c.FabVersion, RunType: "serverapp",
		Status: &flwr.RunStatus{Status: "running"},
	}
	var fab *flwr.Fab
	if len(c.Fab) > 0 {
		sum := sha256.Sum256(c.Fab)
		run.FabHash = hex.EncodeToString(sum[:])
		fab = &flwr.Fab{HashStr: run.FabHash, Content: c.Fab}
	}
	return &flwr.PullAppInputsResponse{
		Context: &flwr.Context{
			RunId: c.RunID, NodeId: c.NodeID, State: state,
			NodeConfig: flwr.Scalars(c.NodeConfig), RunConfig: flwr.Scalars(c.RunConfig),
		},
		Run: run, Fab: fab,
	}, nil
}

// FromMetadata returns a message's metadata as Flower's wire has them; id is the message's.
func FromMetadata(m object.Metadata, id object.ID) *flwr.Metadata {
	return &flwr.Metadata{
		RunId: m.RunID, MessageId: id.String(), SrcNodeId: m.SrcNode, DstNodeId: m.DstNode,
		ReplyToMessageId: m.ReplyTo, GroupId: m.Group, Ttl: m.TTL, MessageType: m.Type, CreatedAt: m.CreatedAt,
	}
}

// ToMetadata reads a message's metadata off the wire, but for its id. m may be nil.
func ToMetadata(m *flwr.Metadata) object.Metadata {
	return object.Metadata{
		RunID: m.GetRunId(), SrcNode: m.GetSrcNodeId(), DstNode: m.GetDstNodeId(),
		ReplyTo: m.GetReplyToMessageId(), Group: m.GetGroupId(), TTL: m.GetTtl(), Type: m.GetMessageType(), CreatedAt: m.GetCreatedAt(),
	}
}

// FromTree returns a tree as Flower's wire has it.
func FromTree(t flower.Tree) *flwr.ObjectTree {
	out := &flwr.ObjectTree{ObjectId: t.ID.String()}
	for _, c := range t.Children {
		out.Children = append(out.Children, FromTree(c))
	}
	return out
}

// ToTree reads a tree off the wire. It refuses one of more nodes or levels than a message has.
func ToTree(t *flwr.ObjectTree) (flower.Tree, error) {
	left := flower.MaxObjects
	var walk func(*flwr.ObjectTree, int) (flower.Tree, error)
	walk = func(t *flwr.ObjectTree, depth int) (flower.Tree, error) {
		if left--; left < 0 {
			return flower.Tree{}, fmt.Errorf("tree of more than %d objects", flower.MaxObjects)
		}
		if depth == 0 {
			return flower.Tree{}, errors.New("tree is too deep")
		}
		id, err := object.ParseID(t.GetObjectId())
		if err != nil {
			return flower.Tree{}, err
		}
		out := flower.Tree{ID: id}
		for _, c := range t.GetChildren() {
			child, err := walk(c, depth-1)
			if err != nil {
				return flower.Tree{}, err
			}
			out.Children = append(out.Children, child)
		}
		return out, nil
	}
	return walk(t, maxDepth)
}
