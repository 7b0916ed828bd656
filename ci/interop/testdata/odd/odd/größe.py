"""Values that nobody expects: what both sides of the app send, and know to have been sent."""

import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

WORDS = "Größe, 重み, тест, 🌸\n\t\"'\\\0"

# Settings that a run config can hold.
SETTINGS = {
    "Größe": WORDS,
    "": "a key that is empty",
    "yes": True,
    "no": False,
    "small": -(2**63),
    "large": 2**63 - 1,
    "tiny": 5e-324,
    "zero": -0.0,
    "nothing": "",
    "nan": math.nan,
    "infinite": -math.inf,
}

# What only Flower's own messages can hold.
MORE = {
    "beyond": 2**64 - 1,
    "重み": b"\x00\xff",
    "no bytes": b"",
    "flags": [True, False],
    "whole": [-(2**63), 2**63 - 1],
    "beyond all": [2**63, 2**64 - 1],
    "real": [math.inf, -0.0, 5e-324],
    "words": [WORDS, ""],
    "blobs": [b"\x00", b""],
    "none": [],
}

# What one setting, or one answer, has too much of, by mode.
SETTING_TOO_MUCH = {"bytes-setting": {"raw": b"\x00"}}
METRIC_TOO_MUCH = {"nan-metric": {"loss": math.nan}, "beyond-examples": {"num-examples": 2**63}}

# Weights of a quarter, a quarter and a half: with these and small eighths, means are exact,
# whichever reply comes first.
EXAMPLES = [16, 16, 32]


def numbers():
    """Return arrays that can be averaged, each of a kind of its own."""
    random = np.random.default_rng(3)
    some = lambda *shape: np.round(8 * random.standard_normal(shape)) / 8
    return {
        "Größe.重み 🌸": some(5, 3).astype(np.float32),
        "": some(3),
        "../up\\and\n/away": some(2),
        "half": some(4, 4).astype(np.float16),
        "big-endian": some(6).astype(">f4"),
        "big-endian.double": some(2, 3).astype(">f8"),
        "big-endian.whole": (100 * some(5)).astype(">i4"),
        "bytes": (20 * some(9)).astype(np.int8),
        "unsigned": (100 + 10 * some(9)).astype(np.uint8),
        "count": np.asarray(2**40 + 1),
        "scalar": np.asarray(some()),
        "scalar.half": np.asarray(some(), dtype=np.float16),
        "empty": np.zeros((0, 7), dtype=np.float32),
        "columns": np.asfortranarray(some(3, 4)),
        "cube": np.asfortranarray(some(2, 3, 4).astype(np.float32)),
        "steps": some(6, 4)[::2, ::-1],
        "ones": some(1, 1, 1, 1),
    }


def others():
    """Return arrays that can only be carried."""
    return {
        "truth": np.array([True, False, True]),
        "complex": np.array([1 + 2j, complex(math.nan, -math.inf)]),
        "words": np.array(["ä", "重み", ""]),
        "bytes.fixed": np.array([b"ab", b"\xff"]),
        "nan": np.array([math.nan, -math.inf, -0.0]),
    }


def initial(mode):
    """Return the arrays that the ServerApp begins with."""
    arrays = numbers()
    if mode == "own":
        arrays |= others()
    if mode == "truth-array":
        arrays["truth"] = np.array([True])
    return arrays


def settings(mode):
    """Return the settings that the ServerApp sends with a training."""
    if mode == "own":
        return SETTINGS | MORE
    return SETTINGS | SETTING_TOO_MUCH.get(mode, {})


def moved(arrays, partition):
    """Return what a ClientApp makes of arrays."""
    out = {}
    for name, x in arrays.items():
        if x.dtype.kind in "fiu" and name != "nan":
            out[name] = np.asarray(x + np.asarray(partition + 1).astype(x.dtype), dtype=x.dtype, order="F" if np.isfortran(x) else "C")
        else:
            out[name] = x
    return out


def partition_of(metrics):
    """Return whose metrics these are."""
    return 2**64 - 1 - metrics["Größe 🌸"]


def metrics(mode, partition):
    """Return what a ClientApp says of itself."""
    m = {
        "num-examples": EXAMPLES[partition],
        "Größe 🌸": 2**64 - 1 - partition,
        "small": -(2**63) + partition,
        "tiny": 5e-324,
        "loss": 1 / (partition + 3),
        "list": [partition - 0.5, -1e300],
        "list.beyond": [2**63 + partition, 2**64 - 1],
        "list.empty": [],
    }
    if mode == "own":
        m |= {"nan": math.nan, "infinite": -math.inf, "list.nan": [math.nan, math.inf]}
    return m | METRIC_TOO_MUCH.get(mode, {})


def record(arrays):
    """Return an ArrayRecord of arrays."""
    return ArrayRecord({name: Array(x) for name, x in arrays.items()})


def same(got, want, but=()):
    """Raise unless a record holds exactly what it was to hold: types, bits and order."""
    if isinstance(got, ArrayRecord):
        show = lambda x: (x.dtype.str, x.shape, np.isfortran(x), x.tobytes())
        got, want = {k: show(v.numpy()) for k, v in got.items()}, {k: show(Array(v).numpy()) for k, v in want.items()}
    elif isinstance(got, (ConfigRecord, MetricRecord)):
        got = {k: repr(v) for k, v in got.items() if k not in but}
        want = {k: repr(v) for k, v in want.items()}
    if list(got.items()) != list(want.items()):
        raise ValueError(f"got {got}, want {want}")
