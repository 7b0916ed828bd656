"""The ServerApp: FedAvg over three clients."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

LAYER = 16 << 20  # bytes of an array at most


def initial_arrays(size, seed):
    """Return arrays of float32 with so many bytes in all."""
    random = np.random.default_rng(seed)
    arrays = {}
    for start in range(0, size, LAYER):
        elements = min(LAYER, size - start) // 4
        arrays[f"layer-{start // LAYER}"] = Array(random.random(elements, np.float32))
    return ArrayRecord(arrays)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with federated averaging."""
    config = context.run_config
    FedAvg(min_available_nodes=3).start(
        grid=grid,
        initial_arrays=initial_arrays(config["size"], config["seed"]),
        train_config=ConfigRecord({}),
        num_rounds=config["num-server-rounds"],
    )
