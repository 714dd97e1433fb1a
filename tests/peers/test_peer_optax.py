"""The same steps as optax's optimizers."""

import peer
import pytest
from peer import MATRICES, Row

ROWS = [
    Row("AdamW(0.01, weight_decay=0.1)", "optax.adamw(0.01, weight_decay=0.1)"),
    Row("Adam(0.01)", "optax.adam(0.01)"),
    Row(
        "Adam(0.01, l2=0.1)",
        "optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01))",
    ),
    Row(
        "Adam(0.01, amsgrad=True)",
        "optax.amsgrad(0.01)",
        0.1,
        "optax takes the largest v̂, here and in PyTorch it is the largest v, corrected as v is",
    ),
    Row("SGD(0.01, momentum=0.9)", "optax.sgd(0.01, momentum=0.9)"),
    Row(
        "SGDW(0.01, weight_decay=0.1, nesterov=True)",
        "optax.chain(optax.trace(0.9, nesterov=True), optax.add_decayed_weights(0.1), "
        "optax.scale_by_learning_rate(0.01))",
    ),
    Row("Lion(0.01, weight_decay=0.1)", "optax.lion(0.01, weight_decay=0.1)"),
    Row("LAMB(0.01, weight_decay=0.1)", "optax.lamb(0.01, weight_decay=0.1)"),
    Row(
        "Adafactor(0.01, weight_decay=0.1)",
        "optax.adafactor(0.01, min_dim_size_to_factor=1, weight_decay_rate=0.001)",
    ),
    Row(
        "Muon(0.02, nesterov=False)",
        "contrib.muon(0.02, nesterov=False)",
        1e-6,
        shapes=MATRICES,
    ),
    Row(
        "Muon(0.02)",
        "contrib.muon(0.02)",
        0.1,
        "optax corrects momentum and gradient for their start, each by itself, before Nesterov's "
        "sum of them: another mixture than the authors'",
        shapes=MATRICES,
    ),
    Row("Prodigy(use_bias_correction=True)", "contrib.prodigy(1.0)"),
    Row(
        "Prodigy(use_bias_correction=True, safeguard_warmup=True, weight_decay=0.1, d_coef=2.0)",
        "contrib.prodigy(1.0, safeguard_warmup=True, weight_decay=0.1, estim_lr_coef=2.0)",
    ),
    Row("Lookahead(SGD(0.1))", "optax.lookahead(optax.sgd(0.1), 6, 0.5)"),
    Row(
        "ScheduleFree(AdamW(0.01, weight_decay=0.1, beta_1=0.0))",
        "contrib.schedule_free_adamw(0.01, weight_decay=0.1)",
    ),
    Row("ScheduleFree(SGD(0.1))", "contrib.schedule_free_sgd(0.1)"),
]


@pytest.fixture(autouse=True)
def float64():
    """Of jax; back to float32 afterwards."""
    jax = peer.installed("jax")
    peer.installed("optax")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def run(theirs, start, gradients):
    """`contrib.x` is `optax.contrib.x`."""
    import jax
    import optax
    import optax.contrib

    optimizer = eval(theirs, dict(optax=optax, contrib=optax.contrib))
    params = [jax.numpy.asarray(p) for p in start]
    if slow := theirs.startswith("optax.lookahead"):
        params = optax.LookaheadParams.init_synced(params)
    state = optimizer.init(params)

    @jax.jit
    def update(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for t in range(peer.STEPS):
        now = params.fast if slow else params
        grads = gradients([jax.device_get(p) for p in now], t)
        params, state = update([jax.numpy.asarray(g) for g in grads], state, params)
        yield [jax.device_get(p) for p in (params.fast if slow else params)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_optax(row):
    peer.assert_equal_paths(row, run)
