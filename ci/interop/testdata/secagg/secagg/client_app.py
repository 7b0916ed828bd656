"""A NumPyClient whose answers to a training are masked by Flower's own mod."""

from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    def __init__(self, part):
        self.part = part

    def fit(self, parameters, config):
        return [(p + self.part + 1).astype(p.dtype) for p in parameters], 10 * (self.part + 1), {}

    def evaluate(self, parameters, config):
        return 0.25, 10, {"accuracy": float(parameters[0][0][0])}


def client_fn(context):
    return Client(context.node_config["partition-id"]).to_client()


app = ClientApp(client_fn=client_fn, mods=[secaggplus_mod])
