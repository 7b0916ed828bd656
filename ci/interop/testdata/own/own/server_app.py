"""A strategy of its own: the median of the replies, and a question before the end."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

app = ServerApp()


class Median(FedAvg):
    def aggregate_train(self, server_round, replies):
        updates = [r.content["arrays"] for r in replies if not r.has_error()]
        print("saw", [float(u["w"].numpy()[0]) for u in updates])
        middle = {}
        for name, array in updates[0].items():
            middle[name] = Array(np.asarray(np.median([u[name].numpy() for u in updates], axis=0), array.numpy().dtype))
        return ArrayRecord(middle), MetricRecord({"replies": len(updates)})


@app.main()
def main(grid, context):
    mode = context.run_config["mode"]
    initial = ArrayRecord({"w": Array(np.zeros(4, np.float32)), "ümlaut": Array(np.array(0.5))})
    strategy = Median(min_available_nodes=3)
    if mode == "private":
        strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(min_available_nodes=3), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=3)
    if mode == "sampled":  # as in Flower's templates
        strategy = FedAvg(min_available_nodes=3, fraction_evaluate=0.5)
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=context.run_config["num-server-rounds"])
    if mode == "median":
        ask = [Message(RecordDict({"q": ConfigRecord({"what": "rows"})}), n, "query.rows", group_id="end") for n in grid.get_node_ids()]
        rows = sorted(r.content["m"]["rows"] for r in grid.send_and_receive(ask))
        if rows != [10, 20, 30]:
            raise RuntimeError("wrong answers")
    assert result.arrays["w"].numpy().shape == (4,)
