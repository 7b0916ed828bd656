"""The model and its data: plain NumPy."""

import numpy as np

# The smallest and largest value of each feature, from the published description of the
# data set. They are constants, so that no hospital tells the mean of its patients.
LOW = np.array([
    6.981, 9.71, 43.79, 143.5, 0.053, 0.019, 0, 0, 0.106, 0.05,
    0.112, 0.36, 0.757, 6.802, 0.002, 0.002, 0, 0, 0.008, 0.001,
    7.93, 12.02, 50.41, 185.2, 0.071, 0.027, 0, 0, 0.156, 0.055,
])
HIGH = np.array([
    28.11, 39.28, 188.5, 2501, 0.163, 0.345, 0.427, 0.201, 0.304, 0.097,
    2.873, 4.885, 21.98, 542.2, 0.031, 0.135, 0.396, 0.053, 0.079, 0.03,
    36.04, 49.54, 251.2, 4254, 0.223, 1.058, 1.252, 0.291, 0.664, 0.208,
])


def initial_arrays():
    """Return where training starts: weights and bias."""
    return [np.zeros(LOW.size), np.zeros(1)]


def load(path):
    """Read a hospital's rows and hold out every fifth for evaluation."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    x = (2 * rows[:, :-1] - LOW - HIGH) / (HIGH - LOW)
    y = rows[:, -1]
    held = np.arange(len(y)) % 5 == 0
    return (x[~held], y[~held]), (x[held], y[held])


def probability(arrays, x):
    """Return the probability of "benign" of each row."""
    weights, bias = arrays
    return 1 / (1 + np.exp(-(x @ weights + bias[0])))


def train(arrays, x, y, epochs, rate):
    """Full-batch gradient descent on the cross-entropy."""
    weights, bias = (a.copy() for a in arrays)
    for _ in range(epochs):
        d = probability([weights, bias], x) - y
        weights -= rate * (x.T @ d / len(y) + 1e-3 * weights)
        bias -= rate * d.mean()
    return [weights, bias]


def evaluate(arrays, x, y):
    """Return mean cross-entropy and accuracy."""
    p = np.clip(probability(arrays, x), 1e-15, 1 - 1e-15)
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    return float(loss), float(np.mean((p > 0.5) == (y == 1)))
