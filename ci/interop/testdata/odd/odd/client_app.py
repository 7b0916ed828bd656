"""The ClientApp: checks what it gets, and answers what no example answers."""

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from odd.größe import MORE, SETTINGS, WORDS, initial, metrics, moved, others, record, same, settings

app = ClientApp()


def check(context, mode):
    """Raise unless the configs of the run and of the node are what they are to be."""
    want = {"num-server-rounds": 2, "mode": mode, "Größe": "überall 🌸", "small": -(2**63), "süß.天気 🌧": '雨\n\t"\\'}
    if {k: v for k, v in context.run_config.items() if not k.startswith("concordat.")} != want:
        raise ValueError(f"run config {context.run_config}")
    if context.node_config["Ort"] != "Köln, 東京 🌸":
        raise ValueError(f"node config {context.node_config}")


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Check everything, and answer with this partition's values."""
    mode, partition = context.run_config["mode"], context.node_config["partition-id"]
    check(context, mode)
    config = msg.content["config"]
    same(config, dict(sorted(SETTINGS.items())) if mode != "own" else settings(mode), but=["server-round"])
    first = config["server-round"] == 1
    if first:
        same(msg.content["arrays"], initial(mode))
        context.state["kept"] = ConfigRecord(SETTINGS | MORE)
        context.state[WORDS] = record(others())
    else:
        same(context.state["kept"], SETTINGS | MORE)
        same(context.state[WORDS], others())
    arrays = {name: a.numpy() for name, a in msg.content["arrays"].items()}
    reply = {"arrays": record(moved(arrays, partition)), "metrics": MetricRecord(metrics(mode, partition))}
    if mode in ("own", "config-reply"):
        reply[WORDS] = ConfigRecord(SETTINGS | MORE)
    return Message(RecordDict(reply), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Answer with metrics alone."""
    mode, partition = context.run_config["mode"], context.node_config["partition-id"]
    check(context, mode)
    return Message(RecordDict({"metrics": MetricRecord(metrics(mode, partition))}), reply_to=msg)
