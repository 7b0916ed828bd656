"""The ServerApp: federated averaging of an estimator's coefficients."""

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from tumours.task import FEATURES

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train from zeros."""
    initial = ArrayRecord([np.zeros((1, FEATURES)), np.zeros(1)])
    FedAvg().start(grid=grid, initial_arrays=initial, num_rounds=context.run_config["num-server-rounds"])
