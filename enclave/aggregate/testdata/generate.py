"""Makes cases.json, the reference of this package, with Flower's own functions.

Run with flwr and numpy installed (the committed file: flwr 1.29.0, numpy 2.4.6):

    python generate.py
"""

import base64
import json

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
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
            "fedavg": text(mean),
            "fedmedian": text(median),
            "metrics": dict(metrics),
        }
    )
json.dump(cases, open("cases.json", "w"), indent=1)
