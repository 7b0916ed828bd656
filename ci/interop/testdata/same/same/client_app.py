"""The ClientApp: what it answers depends on the model, the round and the partition alone."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

EXAMPLES = [17, 29, 23]


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Move every array by numbers of this partition and round."""
    partition = context.node_config["partition-id"]
    random = np.random.default_rng([partition, msg.content["config"]["server-round"]])
    arrays = {}
    for name, array in msg.content["arrays"].items():
        x = array.numpy()
        moved = (0.9 * x + random.standard_normal(x.shape)).astype(x.dtype)
        arrays[name] = Array(np.asarray(moved, order="F" if np.isfortran(x) else "C"))
    metrics = MetricRecord({"num-examples": EXAMPLES[partition], "partition-id": partition})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Say how far the model is from zero."""
    partition = context.node_config["partition-id"]
    loss = sum(float(np.abs(a.numpy()).sum()) for a in msg.content["arrays"].values())
    metrics = MetricRecord({"num-examples": EXAMPLES[partition], "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
