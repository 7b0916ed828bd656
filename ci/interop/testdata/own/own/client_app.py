"""Adds one more than the number of its partition."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    part = context.node_config["partition-id"]
    arrays = {}
    for name, array in msg.content["arrays"].items():
        old = array.numpy()
        arrays[name] = Array(np.asarray(old + (part + 1), old.dtype))
    metrics = MetricRecord({"num-examples": 10, "loss": 1.0 / (part + 1)})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    metrics = MetricRecord({"num-examples": 10, "accuracy": float(msg.content["arrays"]["w"].numpy()[0])})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


@app.query("rows")
def rows(msg, context):
    assert msg.content["q"]["what"] == "rows"
    return Message(RecordDict({"m": MetricRecord({"rows": 10 * (context.node_config["partition-id"] + 1)})}), reply_to=msg)
