"""The ClientApp: one array after another, so that it holds the model once."""

from flwr.app import Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Add one more than the number of the partition."""
    arrays = msg.content["arrays"]
    for name in list(arrays):
        arrays[name] = Array(arrays[name].numpy() + (context.node_config["partition-id"] + 1))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Look at every array."""
    for name, array in msg.content["arrays"].items():
        if array.numpy().shape != (2**21,):
            raise ValueError(name)
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)
