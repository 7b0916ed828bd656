"""The ServerApp: an ordinary one, which also runs on Flower's own server."""

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quickstart.task import initial_arrays

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with federated averaging."""
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_arrays()),
        train_config=ConfigRecord({"lr": context.run_config["learning-rate"]}),
        num_rounds=context.run_config["num-server-rounds"],
    )
    print(f"trained {len(result.arrays)} arrays")
