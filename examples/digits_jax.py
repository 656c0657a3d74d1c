"""Train a small network on 8 x 8 digits with an emitted optimizer, in plain JAX and Optax.

    pip install optax scikit-learn
    python examples/digits_jax.py

``sol_mnistnet_optax.py``, next to this file, is what ``sol export sol-mnistnet --to optax`` writes; nothing of sol is
needed.
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sol_mnistnet_optax import sol_mnistnet

STEPS = 100


def logits(params, inputs):
    """The network: 64 inputs, 20 sigmoid units, 10 classes."""
    return jax.nn.sigmoid(inputs @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def train(optimizer):
    """Train for 100 batches of 128; returns the test accuracy."""
    digits = load_digits()
    inputs, labels = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    one, two, batches = jax.random.split(jax.random.key(0), 3)
    params = {
        "w1": jax.random.uniform(one, (64, 20), minval=-(64**-0.5), maxval=64**-0.5),
        "b1": jnp.zeros(20),
        "w2": jax.random.uniform(two, (20, 10), minval=-(20**-0.5), maxval=20**-0.5),
        "b2": jnp.zeros(10),
    }

    def loss(params, batch):
        errors = optax.softmax_cross_entropy_with_integer_labels(logits(params, inputs[batch]), labels[batch])
        return errors.mean()

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for key in jax.random.split(batches, STEPS):
        params, state = step(params, state, jax.random.randint(key, (128,), 0, 1500))
    return float((logits(params, inputs[1500:]).argmax(1) == labels[1500:]).mean())


if __name__ == "__main__":
    print(f"sol_mnistnet  test accuracy {train(sol_mnistnet(horizon=STEPS)):.3f}")
    print(f"adam          test accuracy {train(optax.adam(0.0316)):.3f}")
