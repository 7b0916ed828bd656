"""The ServerApp: an ordinary one, which also runs on Flower's own server."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with federated averaging."""
    run = context.run_config
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord([np.asarray(p) for p in task.initial(run["seed"])]),
        train_config=ConfigRecord({"lr": run["learning-rate"]}),
        num_rounds=run["num-server-rounds"],
    )
    print(f"trained {len(result.arrays)} arrays")
