"""The ClientApp: an ordinary one, which also runs on Flower's own SuperNode."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits import task

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Improve the model on this owner's rows."""
    rows, _ = task.load(context.node_config["data"])
    config, run = msg.content["config"], context.run_config
    # Another order in every round and at every owner, and the same whenever it is run again.
    rng = np.random.default_rng(
        [run["seed"], context.node_config["partition-id"], config["server-round"]]
    )
    params = msg.content["arrays"].to_numpy_ndarrays()
    params = task.train(params, rows, run["epochs"], config["lr"], rng)
    arrays = ArrayRecord([np.asarray(p) for p in params])
    metrics = MetricRecord({"num-examples": len(rows[1])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Judge the model on the rows that are held out."""
    _, (x, y) = task.load(context.node_config["data"])
    loss, accuracy = task.evaluate(msg.content["arrays"].to_numpy_ndarrays(), x, y)
    metrics = MetricRecord(
        {"num-examples": len(y), "loss": float(loss), "accuracy": float(accuracy)}
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
