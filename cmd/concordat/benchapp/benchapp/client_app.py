"""The ClientApp: it adds a small number of its own to the model."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Return the model, a little larger."""
    more = np.float32(1 + context.node_config["partition-id"]) / 1024
    arrays = {name: Array(a.numpy() + more) for name, a in msg.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": 100})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Return the mean of the first array."""
    first = next(iter(msg.content["arrays"].values())).numpy()
    metrics = MetricRecord({"num-examples": 100, "loss": float(first.mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
