"""The model and its data: a small network in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_platforms", "cpu")  # small enough to look for nothing else

SIZES = (64, 32, 10)  # pixels, hidden units, digits
BATCH = 32

Params = list[jax.Array]  # weights and bias of each layer
Rows = tuple[np.ndarray, np.ndarray]  # pixels from 0 to 1, and the digit


def initial(seed: int) -> Params:
    """Return where training starts."""
    params = []
    keys = jax.random.split(jax.random.key(seed), len(SIZES) - 1)
    for key, rows, columns in zip(keys, SIZES, SIZES[1:]):
        params.append(jax.random.normal(key, (rows, columns)) * (2 / rows) ** 0.5)
        params.append(jnp.zeros(columns))
    return params


def load(path: str) -> tuple[Rows, Rows]:
    """Read an owner's rows and hold out every fifth for evaluation."""
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    x, y = rows[:, :-1] / 16, rows[:, -1].astype(np.int32)
    held = np.arange(len(y)) % 5 == 0
    return (x[~held], y[~held]), (x[held], y[held])


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Return a score for each of the ten digits."""
    w1, b1, w2, b2 = params
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    log_p = jax.nn.log_softmax(logits(params, x))
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


@jax.jit
def step(params: Params, x: jax.Array, y: jax.Array, rate: float) -> Params:
    """Descend once along the gradient."""
    gradients = jax.grad(loss)(params, x, y)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradients)


def train(params: Params, rows: Rows, epochs: int, rate: float, rng: np.random.Generator) -> Params:
    """Stochastic gradient descent. Batches have one size, so that JAX compiles one step."""
    x, y = rows
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for i in range(0, len(y) - BATCH + 1, BATCH):
            batch = order[i : i + BATCH]
            params = step(params, x[batch], y[batch], rate)
    return params


@jax.jit
def evaluate(params: Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean cross-entropy and accuracy."""
    return loss(params, x, y), (logits(params, x).argmax(axis=1) == y).mean()
