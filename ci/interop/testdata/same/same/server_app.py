"""The ServerApp: Flower's FedAvg, over replies in a given order."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


def initial_arrays():
    """Return where training starts: the same arrays everywhere."""
    random = np.random.default_rng(1)
    return {
        "dense.weight": random.standard_normal((37, 61)).astype(np.float32),
        "dense.bias": random.standard_normal(61).astype(np.float32),
        "Größe.重み": random.standard_normal((5, 3, 7)),
        "columns": np.asfortranarray(random.standard_normal((19, 23)).astype(np.float32)),
        "columns.double": np.asfortranarray(random.standard_normal((11, 13))),
        "scale": np.asarray(random.standard_normal()),
        "scale.single": np.asarray(random.standard_normal(), dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }


def write(file, arrays):
    """Write each array's own bytes, which are those of an .npy file."""
    np.savez(file, **{name: np.frombuffer(a.data, np.uint8) for name, a in arrays.items()})


class Ordered(FedAvg):
    """FedAvg whose sums do not depend on whose reply came first."""

    def __init__(self, order, results):
        super().__init__(min_available_nodes=len(order), min_train_nodes=len(order))
        self.order, self.results = order, results

    def aggregate_train(self, server_round, replies):
        """Average in the given order; leave beside it what another order makes."""
        place = lambda reply: self.order.index(reply.content["metrics"]["partition-id"])
        replies = sorted(replies, key=place)
        if self.results:
            backwards, _ = super().aggregate_train(server_round, replies[::-1])
            write(self.results / "backwards.npz", backwards)
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write what comes out where the run config says."""
    config = context.run_config
    results = Path(config["results"]) if config["results"] else None
    strategy = Ordered([int(p) for p in config["order"].split()], results)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({k: Array(v) for k, v in initial_arrays().items()}),
        train_config=ConfigRecord({}),
        num_rounds=config["num-server-rounds"],
    )
    if results:
        write(results / "arrays.npz", result.arrays)
