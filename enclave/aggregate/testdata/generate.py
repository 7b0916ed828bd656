"""Makes cases.json and strategies.json, the reference of this package, with Flower's own
functions and strategies.

Run with flwr and numpy installed (the committed file: flwr 1.29.0, numpy 2.4.6):

    python generate.py
"""

import base64
import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy.strategy_utils import (
    aggregate_arrayrecords,
    aggregate_metricrecords,
)

KEY = "num-examples"
rng = np.random.default_rng(7)


def values(shape, dtype):
    """Values of every size, so that rounding shows."""
    a = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)
    return np.asarray(a.astype(dtype))


def halves(shape, dtype):
    """The same within float16: subnormal values too."""
    a = rng.standard_normal(shape) * 10.0 ** rng.integers(-7, 4, shape)
    return np.asarray(a.astype(dtype))


def integers(shape, dtype):
    """Values over the whole range of a type, and small ones."""
    i = np.iinfo(dtype)
    a = rng.integers(i.min, i.max, shape, dtype=np.dtype(dtype).newbyteorder("="), endpoint=True)
    a.ravel()[::3] %= 100
    return a.astype(dtype)


def loaded(array, dtype):
    """What the array becomes in the model: integers get float64 means, which lose their
    fraction when a model is loaded from them."""
    if np.dtype(dtype).kind not in "iu":
        return array
    return Array(np.asarray(array.numpy().astype(np.dtype(dtype).newbyteorder("="))))


def text(array):
    """The array's npy bytes."""
    return base64.b64encode(array.data).decode()


cases = []
for name, weights, make in [
    ("float32", [281, 178, 110], lambda: values((7, 33), "<f4")),
    ("float64", [281, 178, 110], lambda: values((7, 33), "<f8")),
    ("bigendian", [3, 5, 7, 11, 13], lambda: values((129,), ">f4")),
    ("fortran", [1, 2, 3, 4, 5, 6, 7, 8, 9], lambda: np.asfortranarray(values((5, 4), "<f4"))),
    ("scalar", [9007199254740990, 1, 1], lambda: values((), "<f8")),
    ("scalar32", [4, 3], lambda: values((), "<f4")),
    ("empty", [2, 1], lambda: values((0, 3), "<f4")),
    ("zeroweight", [0, 6, 0, 1], lambda: values((50,), "<f4")),
    ("half", [281, 178, 110], lambda: halves((7, 33), "<f2")),
    ("bighalf", [3, 5, 7, 11], lambda: halves((70,), ">f2")),
    ("int64", [281, 178, 110], lambda: integers((7, 33), "<i8")),
    ("bigint32", [2, 3, 4], lambda: integers((70,), ">i4")),
    ("int16", [2, 3], lambda: integers((70,), "<i2")),
    ("int8", [2, 3, 3], lambda: integers((70,), "|i1")),
    ("uint8", [2, 3, 3], lambda: integers((70,), "|u1")),
    ("uint32", [2, 3, 3], lambda: integers((70,), "<u4")),
    ("uint64", [1, 3, 4], lambda: integers((70,), "<u8")),
]:
    records, stack, inputs = [], [], []
    for k, n in enumerate(weights):
        a = make()
        stack.append(a)
        array = Array(a)
        inputs.append(text(array))
        records.append(
            RecordDict(
                {
                    "arrays": ArrayRecord({"a": array}),
                    "metrics": MetricRecord(
                        {KEY: n, "loss": 0.1 * (k + 1), "count": 3 * k + 1, "list": [0.5, 1.0 / (k + 1)]}
                    ),
                }
            )
        )
    mean = aggregate_arrayrecords(records, KEY)["a"]
    # FedMedian.aggregate_train, of which only this line computes.
    median = Array(np.asarray(np.median(np.stack(stack), axis=0)))
    metrics = aggregate_metricrecords(records, KEY)
    cases.append(
        {
            "name": name,
            "examples": weights,
            "inputs": inputs,
            "fedavg": text(loaded(mean, stack[0].dtype)),
            "fedmedian": text(loaded(median, stack[0].dtype)),
            "metrics": dict(metrics),
        }
    )
json.dump(cases, open("cases.json", "w"), indent=1)


def reply(arrays, examples, loss):
    """A node's answer."""
    return Message(
        content=RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()}),
                "metrics": MetricRecord({KEY: examples, "train_loss": loss}),
            }
        ),
        dst_node_id=1,
        message_type="train",
    )


def run(name, strategy, arguments, nodes, dtype="<f4", bound=0.0, rounds=3, spread=0.1):
    """Rounds of one strategy: each begins with the model that the last one gave, rounded to
    the model's type, as it is stored. bound is how far a value may be off, relative to the
    largest of its array."""
    shapes = {"a": (3, 17), "b": (5,), "c": ()}
    if name == "dpfedavg":
        # Flower does not clip arrays without dimensions: the update of one is a number, and
        # multiplying it in place changes nothing. Here they are clipped.
        del shapes["c"]
    model = {k: np.asarray(rng.standard_normal(s).astype(dtype)) for k, s in shapes.items()}
    case = {"name": name, "arguments": arguments, "bound": bound, "model": {k: text(Array(v)) for k, v in model.items()}, "rounds": []}
    for server_round in range(1, rounds + 1):
        replies, inputs = [], []
        for _ in range(nodes):
            examples, loss = int(rng.integers(1, 400)), float(rng.random() * 3)
            # Some nodes are far off.
            far = spread * (20 if rng.random() < 0.2 else 1)
            arrays = {k: np.asarray((v + far * rng.standard_normal(v.shape)).astype(dtype)) for k, v in model.items()}
            inputs.append({"examples": examples, "loss": loss, "arrays": {k: text(Array(v)) for k, v in arrays.items()}})
            replies.append(reply(arrays, examples, loss))
        record = ArrayRecord({k: Array(v) for k, v in model.items()})
        # What configure_train does: it needs nodes, and this script has none.
        if isinstance(strategy, flower.FedAvgM):
            strategy.current_arrays = strategy.current_arrays or record
        elif isinstance(strategy, (flower.FedAdagrad, flower.FedAdam, flower.FedYogi)):
            strategy.current_arrays = {k: v.numpy() for k, v in record.items()}
        else:
            strategy.current_arrays = record
        result, _ = strategy.aggregate_train(server_round, replies)
        model = {k: np.asarray(v.numpy().astype(dtype)) for k, v in result.items()}
        case["rounds"].append({"inputs": inputs, "want": {k: text(Array(v)) for k, v in model.items()}})
    return case


strategies = [
    run("fedavgm", flower.FedAvgM(), {}, 3),
    run("fedavgm", flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.9), {"server_learning_rate": 0.7, "server_momentum": 0.9}, 4),
    run("fedavgm", flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.9), {"server_learning_rate": 0.7, "server_momentum": 0.9}, 4, "<f8"),
    run("fedavgm", flower.FedAvgM(server_momentum=0.5), {"server_momentum": 0.5}, 2),
    run("fedadagrad", flower.FedAdagrad(), {}, 3),
    run("fedadagrad", flower.FedAdagrad(eta=0.3, tau=0.01), {"eta": 0.3, "tau": 0.01}, 3, "<f8"),
    run("fedadam", flower.FedAdam(), {}, 3, rounds=5),
    run("fedadam", flower.FedAdam(eta=0.3, beta_1=0.8, beta_2=0.95, tau=0.01), {"eta": 0.3, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}, 3, "<f8", rounds=5),
    run("fedyogi", flower.FedYogi(), {}, 3),
    run("fedyogi", flower.FedYogi(eta=0.3, beta_1=0.8, beta_2=0.95, tau=0.01), {"eta": 0.3, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}, 3, "<f8"),
    # Flower adds squares and products in the array's type, in an order that numpy and its
    # BLAS choose; here they are added in float64.
    run("qfedavg", flower.QFedAvg(client_learning_rate=0.1), {"client_learning_rate": 0.1}, 5, bound=1e-6),
    run("qfedavg", flower.QFedAvg(client_learning_rate=0.1, q=1.5), {"client_learning_rate": 0.1, "q": 1.5}, 5, "<f8", bound=1e-14),
    run("dpfedavg", flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(), 0.0, 1.5, 6), {"noise_multiplier": 0.0, "clipping_norm": 1.5}, 6, bound=1e-6),
    run("dpfedavg", flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(), 0.0, 1.5, 6), {"noise_multiplier": 0.0, "clipping_norm": 1.5}, 6, "<f8", bound=1e-15),
    # numpy.partition leaves the order within its parts open.
    run("fedtrimmedavg", flower.FedTrimmedAvg(), {}, 11, bound=1e-6),
    run("fedtrimmedavg", flower.FedTrimmedAvg(beta=0.4), {"beta": 0.4}, 8, "<f8", bound=1e-14),
    run("krum", flower.Krum(num_malicious_nodes=2), {"num_malicious_nodes": 2}, 9),
    run("krum", flower.Krum(), {}, 2),
    run("multikrum", flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4), {"num_malicious_nodes": 2, "num_nodes_to_select": 4}, 9),
    run("multikrum", flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=20), {"num_malicious_nodes": 1, "num_nodes_to_select": 20}, 5, "<f8"),
    run("bulyan", flower.Bulyan(num_malicious_nodes=1), {"num_malicious_nodes": 1}, 8, bound=1e-6),
    run("bulyan", flower.Bulyan(num_malicious_nodes=2), {"num_malicious_nodes": 2}, 11, "<f8", bound=1e-14),
]
json.dump(strategies, open("strategies.json", "w"), indent=1)
