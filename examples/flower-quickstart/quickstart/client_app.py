"""The ClientApp: an ordinary one, which also runs on Flower's own SuperNode."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quickstart import task

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Improve the model on this hospital's rows."""
    (x, y), _ = task.load(context.node_config["data"])
    arrays = task.train(
        msg.content["arrays"].to_numpy_ndarrays(), x, y,
        context.run_config["epochs"], msg.content["config"]["lr"],
    )
    # State stays at the node, from one message of a run to the next.
    rounds = context.state["rounds"]["trained"] if "rounds" in context.state else 0
    context.state["rounds"] = ConfigRecord({"trained": rounds + 1})
    metrics = MetricRecord({"num-examples": len(y), "rounds": rounds + 1})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Judge the model on the rows that are held out."""
    _, (x, y) = task.load(context.node_config["data"])
    loss, accuracy = task.evaluate(msg.content["arrays"].to_numpy_ndarrays(), x, y)
    metrics = MetricRecord({"num-examples": len(y), "loss": loss, "accuracy": accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
