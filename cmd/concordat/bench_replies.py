"""Replies on their way through Flower's own code: from arrays at clients to their mean.

Arguments are the number of replies, the size of each in bytes, and a folder with cert.pem and
key.pem of a server on 127.0.0.1. Each line of standard input is an expression, whose value is
answered.
"""

import pathlib
import sys
import time
from importlib.metadata import version

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.common.constant import Status
from flwr.common.grpc import create_channel, generic_create_grpc_server
from flwr.common.typing import RunStatus
from flwr.proto.fleet_pb2_grpc import FleetStub, add_FleetServicer_to_server
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.inflatable import inflatable_object, inflatable_protobuf_utils, inflatable_utils
from flwr.supercore.object_store import ObjectStoreFactory

REPLIES, SIZE, FOLDER = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
EXAMPLES = "num-examples"
RUN = 1


class Running:
    """As much of a SuperLink's state as pushing and pulling objects asks for."""

    def get_run_status(self, run_ids):
        return {i: RunStatus(Status.RUNNING, "", "") for i in run_ids}

    def store_traffic(self, run_id, *, bytes_sent, bytes_recv):
        pass


class States:
    def state(self):
        return Running()


STORES = ObjectStoreFactory()
MODEL = np.random.default_rng(1).random(SIZE // 4, dtype=np.float32)


def connect():
    """Serve Flower's Fleet API over TLS, and return a client's end of it."""
    cert, key = (FOLDER / "cert.pem").read_bytes(), (FOLDER / "key.pem").read_bytes()
    server = generic_create_grpc_server(
        (FleetServicer(States(), STORES, False), add_FleetServicer_to_server), "127.0.0.1:0", certificates=(cert, cert, key)
    )
    server.start()
    return server, FleetStub(create_channel(server.bound_address, insecure=False, root_certificates=cert))


def reply(i):
    """What client i answers: a model that differs from all others."""
    MODEL[:: 1 << 18] = i
    return RecordDict({"arrays": ArrayRecord({"w": Array(MODEL)}), "metrics": MetricRecord({EXAMPLES: i + 1})})


def push(stub, node, i):
    """Client i's part: as Flower pushes the objects of a message."""
    with inflatable_object.no_object_id_recompute():
        content = reply(i)
        objects = inflatable_object.get_all_nested_objects(content)
        tree = inflatable_object.get_object_tree(content)
    STORES.store().preregister(RUN, tree)
    inflatable_utils.push_objects(objects, inflatable_protobuf_utils.make_push_object_fn_protobuf(stub.PushObject, node, RUN))
    return tree


def pull(stub, node, tree):
    """The ServerApp's part, for one reply."""
    contents = inflatable_utils.pull_objects(
        [t.object_id for t in inflatable_object.iterate_object_tree(tree)],
        inflatable_protobuf_utils.make_pull_object_fn_protobuf(stub.PullObject, node, RUN),
    )
    STORES.store().delete(tree.object_id)
    return inflatable_utils.inflate_object_from_contents(tree.object_id, contents)


def whole():
    """All replies from their arrays to the mean. Answers what processors spent until all lay in the store, in seconds."""
    node = Node(node_id=1)
    begin = time.process_time()
    trees = [push(STUB, node, i) for i in range(REPLIES)]
    pushed = time.process_time() - begin
    aggregate([pull(STUB, node, t) for t in trees])
    return pushed


def app():
    """Only what a client's app spends on its reply, wherever it goes. Answers it for all, in seconds of processors."""
    begin = time.process_time()
    for i in range(REPLIES):
        with inflatable_object.no_object_id_recompute():
            for o in inflatable_object.get_all_nested_objects(reply(i)).values():
                o.deflate()
    return time.process_time() - begin


def aggregate(records):
    mean = aggregate_arrayrecords(records, EXAMPLES)
    if len(mean["w"].data) < SIZE:
        raise ValueError("the mean is too short")


def load():
    """Replies as a ServerApp has them, for mean()."""
    global RECORDS
    RECORDS = [reply(i) for i in range(REPLIES)]
    return 0


def mean():
    aggregate(RECORDS)
    return 0


def server():
    """What a ServerApp holds: every reply, inflated from objects that come one reply at a time, and their mean."""
    global MODEL
    records = []
    for i in range(REPLIES):
        with inflatable_object.no_object_id_recompute():
            content = reply(i)
            objects = {k: o.deflate() for k, o in inflatable_object.get_all_nested_objects(content).items()}
            root = content.object_id
        del content
        records.append(inflatable_utils.inflate_object_from_contents(root, objects))
    MODEL = None  # the clients', and no memory of a server
    aggregate(records)
    return 0


SERVER, STUB = connect()
print("flwr", version("flwr"), flush=True)
for line in sys.stdin:
    print("done", eval(line), flush=True)
SERVER.stop(None)
