"""The ClientApp: as Flower's users write it with scikit-learn."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import cross_val_score

from tumours import task

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Fit this hospital's rows."""
    x, _, y, _ = task.load(context.node_config["data"])
    arrays = task.fit(msg.content["arrays"].to_numpy_ndarrays(), x, y)
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": len(y)})}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Judge the model on rows that are held out; cross-validate in processes of joblib's."""
    x, held, y, truth = task.load(context.node_config["data"])
    m = task.model(msg.content["arrays"].to_numpy_ndarrays())
    metrics = MetricRecord({
        "num-examples": len(truth),
        "accuracy": float(accuracy_score(truth, m.predict(held))),
        "loss": float(log_loss(truth, m.predict_proba(held))),
        "alone": float(cross_val_score(m, x, y, cv=3, n_jobs=2).mean()),
    })
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
