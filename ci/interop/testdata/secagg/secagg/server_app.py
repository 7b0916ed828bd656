"""FedAvg, whose trainings are four messages each: SecAgg+ tells every node its own."""

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

app = ServerApp()


@app.main()
def main(grid, context):
    strategy = FedAvg(
        min_fit_clients=3,
        min_evaluate_clients=3,
        min_available_clients=3,
        initial_parameters=ndarrays_to_parameters([np.zeros((2, 3)), np.zeros(1, np.float32)]),
    )
    legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=context.run_config["num-server-rounds"]), strategy=strategy)
    secagg = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, max_weight=100)
    DefaultWorkflow(fit_workflow=secagg)(grid, legacy)
