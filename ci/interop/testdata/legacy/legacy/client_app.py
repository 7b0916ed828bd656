"""A NumPyClient."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    def __init__(self, part):
        self.part = part

    def fit(self, parameters, config):
        return [(p + self.part + 1).astype(p.dtype) for p in parameters], 10, {"loss": 0.5}

    def evaluate(self, parameters, config):
        return 0.25, 10, {"accuracy": float(parameters[0][0][0])}


def client_fn(context):
    return Client(context.node_config["partition-id"]).to_client()


app = ClientApp(client_fn=client_fn)
