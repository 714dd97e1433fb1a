"""Writes optax.zip: states of optax's optimizers, pickled and as flax writes them.

pip install optax flax; JAX_PLATFORMS=cpu python tests/data/make_optax.py
"""

import pickle

import jax
import numpy as np
import optax_rules
import steps
from flax import serialization


def main():
    files, begin, end = {}, {}, {}
    for name, make in optax_rules.RULES.items():
        state, values = optax_rules.train(make(), steps.gradients(steps.BEFORE, 1))
        begin[name] = steps.flat(values)
        files[f"{name}.pkl"] = pickle.dumps(state)
        files[f"{name}.msgpack"] = serialization.to_bytes(state)
        _, values = optax_rules.train(make(), steps.gradients(steps.AFTER, 2), state, values)
        end[name] = steps.flat(values)
    files["numpy.pkl"] = pickle.dumps(jax.tree.map(np.asarray, state), protocol=5)
    steps.write("optax.zip", files, begin, end)


if __name__ == "__main__":
    main()
