"""Trains without a federation, on the parts that are named: python yardstick.py PART.csv..."""

import sys

import numpy as np

from digits import task

EPOCHS, RATE, SEED = 25, 0.2, 7  # as many epochs as five rounds of five


def main(paths: list[str]) -> None:
    """Judge by the held-out rows of all: each owner alone, then all rows in one place."""
    trains, helds = zip(*(task.load(path) for path in paths))
    x, y = (np.concatenate(columns) for columns in zip(*helds))
    together = tuple(np.concatenate(columns) for columns in zip(*trains))
    for name, rows in [*zip(paths, trains), ("in one place", together)]:
        params = task.train(task.initial(SEED), rows, EPOCHS, RATE, np.random.default_rng(SEED))
        loss, accuracy = task.evaluate(params, x, y)
        print(f"{name}: accuracy {accuracy:.3f}, loss {loss:.3f}, of {len(y)} rows")


if __name__ == "__main__":
    main(sys.argv[1:])
