"""The ServerApp: initial arrays of a given size, no two of whose chunks are the same."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train from arrays whose means are exact in float32."""
    arrays = ArrayRecord()
    for i in range(context.run_config["arrays"]):
        arrays[f"layer.{i}"] = Array(np.arange(i, i + 2**21, dtype=np.float32))
    FedAvg(min_available_nodes=2).start(grid=grid, initial_arrays=arrays, num_rounds=context.run_config["num-server-rounds"])
