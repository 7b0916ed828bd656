"""The ServerApp: Flower's mean, with the model's types, of replies that it checks."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from odd.größe import MORE, SETTINGS, WORDS, initial, metrics, moved, numbers, partition_of, record, same, settings

app = ServerApp()


class Exact(FedAvg):
    """FedAvg that knows what every ClientApp must have said."""

    def __init__(self, mode):
        super().__init__(min_available_nodes=3, min_train_nodes=3, min_evaluate_nodes=3)
        self.mode, self.model = mode, initial(mode)

    def check_metrics(self, reply):
        """Return whose reply it is."""
        got = reply.content["metrics"]
        partition = partition_of(got)
        same(got, metrics(self.mode, partition))
        return partition

    def aggregate_train(self, server_round, replies):
        """Average what can be averaged, and carry the rest."""
        replies = list(replies)
        for r in replies:
            partition = self.check_metrics(r)
            same(r.content["arrays"], moved(self.model, partition))
            same(r.content[WORDS], SETTINGS | MORE)
        only = lambda r: RecordDict({"arrays": ArrayRecord({k: r.content["arrays"][k] for k in numbers()}), "metrics": r.content["metrics"]})
        mean = aggregate_arrayrecords([only(r) for r in replies], "num-examples")
        for name, a in mean.items():
            old = self.model[name]
            self.model[name] = np.asarray(a.numpy().astype(old.dtype), order="F" if np.isfortran(old) else "C")
        return record(self.model), MetricRecord({"replies": len(replies)})

    def aggregate_evaluate(self, server_round, replies):
        """Check the replies."""
        for r in replies:
            self.check_metrics(r)
        return MetricRecord({})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train; with mode "own", all of this runs in the enclave."""
    config = context.run_config
    strategy = Exact(config["mode"])
    result = strategy.start(
        grid=grid,
        initial_arrays=record(strategy.model),
        train_config=ConfigRecord(settings(config["mode"])),
        num_rounds=config["num-server-rounds"],
    )
    same(result.arrays, strategy.model)
