"""The same steps as optax's optimizers."""

import peer
import pytest
from peer import MATRICES, Row

pytestmark = pytest.mark.slow

ROWS = [
    # Adam and its relatives.
    Row("AdamW(0.01, weight_decay=0.1)", "optax.adamw(0.01, weight_decay=0.1)"),
    Row("Adam(0.01)", "optax.adam(0.01)"),
    Row(
        "Adam(0.01, l2=0.1)",
        "optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01))",
    ),
    Row(
        "AMSGradW(0.01, weight_decay=0.0)",
        "optax.amsgrad(0.01)",
        0.05,
        "optax takes the largest v̂; here and in PyTorch it is the largest v, corrected as v is",
    ),
    Row("AdaBelief(0.001)", "optax.adabelief(0.001)"),
    Row(
        "ACProp(0.001)",
        "contrib.acprop(0.001)",
        0.005,
        "optax takes the mean of before the step in s, where the paper takes the new one",
    ),
    Row(
        "Adan(0.01, beta_2=0.5, proximal=False, weight_decay=0.1)",
        "optax.adan(0.01, b2=0.5, eps_root=0.0, weight_decay=0.1)",
    ),
    Row(
        "Adan(0.01)",
        "optax.adan(0.01)",
        0.1,
        "the weight of a change of the gradient: optax has 1 − β₂ = 0.08 where the authors' code "
        "and timm have β₂ = 0.92, so the two are equal with β₂ = ½ only; and optax adds an ε "
        "inside the root",
    ),
    Row("AdEMAMix(0.01, weight_decay=0.1)", "contrib.ademamix(0.01, weight_decay=0.1)"),
    Row(
        "AdEMAMix(0.01, alpha_warmup=20.0)",
        "contrib.ademamix(0.01, alpha=lambda t: 5 * jnp.minimum(1, (t + 1) / 20))",
    ),
    Row("ADOPT(0.01)", "contrib.adopt(0.01)"),
    Row("AdaMaxW(0.01, weight_decay=0.1)", "optax.adamaxw(0.01, weight_decay=0.1)", 1e-6),
    Row(
        "NAdamW(0.01, weight_decay=0.1, momentum_decay=10_000.0)",
        "optax.nadamw(0.01, weight_decay=0.1)",
    ),
    Row("RAdam(0.01)", "optax.radam(0.01, threshold=4.0)"),
    Row(
        "Yogi(0.01)",
        "optax.yogi(0.01)",
        5e-6,
        "optax starts m at 1e-6, as it does v; here m starts at 0",
    ),
    Row("LAMB(0.01, weight_decay=0.1)", "optax.lamb(0.01, weight_decay=0.1)"),
    # Squares of gradients.
    Row("AdadeltaW(1.0, weight_decay=0.0)", "optax.adadelta(1.0, rho=0.95)"),
    Row("Adagrad(0.1)", "optax.adagrad(0.1)"),
    Row(
        "AdagradW(0.1, weight_decay=0.0, epsilon=0.0)",
        "optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0)",
    ),
    Row(
        "RMSpropW(0.01, weight_decay=0.0, momentum=0.9)",
        "optax.rmsprop(0.01, eps=1e-7, momentum=0.9)",
    ),
    Row("RMSprop(0.01, centered=True)", "optax.rmsprop(0.01, eps=1e-7, centered=True)"),
    Row("SM3(0.1, epsilon=1e-8)", "optax.sm3(0.1)", shapes=((4, 3), (5,))),
    Row(
        "Adafactor(0.01, weight_decay=0.1)",
        "optax.adafactor(0.01, min_dim_size_to_factor=1, weight_decay_rate=0.001)",
        1e-8,
    ),
    # Momentum, signs and norms.
    Row("SGD(0.01, momentum=0.9)", "optax.sgd(0.01, momentum=0.9)"),
    Row(
        "SGDW(0.01, weight_decay=0.1, nesterov=True)",
        "optax.chain(optax.trace(0.9, nesterov=True), optax.add_decayed_weights(0.1), "
        "optax.scale_by_learning_rate(0.01))",
    ),
    Row("Lion(0.01, weight_decay=0.1)", "optax.lion(0.01, weight_decay=0.1)"),
    Row("Signum(0.01)", "optax.signum(0.01)"),
    Row("Signum(0.01, momentum=0.0)", "optax.sign_sgd(0.01)"),
    Row("Fromage(0.01)", "optax.fromage(0.01)"),
    Row("LARS(1.0)", "optax.lars(1.0)"),
    Row(
        "LARS(1.0, l2=0.1)",
        "optax.lars(1.0, weight_decay=0.1)",
        0.01,
        "optax divides by ‖g + λ θ‖, the paper by ‖g‖ + λ ‖θ‖",
    ),
    Row(
        "NovoGrad(0.01, beta_1=0.9, beta_2=0.25, epsilon=1e-6)",
        "optax.novograd(0.01)",
    ),
    Row(
        "NovoGrad(0.01, beta_1=0.9, beta_2=0.25, epsilon=1e-6, weight_decay=0.1)",
        "optax.novograd(0.01, weight_decay=0.01)",
        0.01,
        "in the paper and in optax m sums up λ θ, here it is decoupled: λ is (1 − β₁) times "
        "as large there",
    ),
    Row("OptimisticSGD(0.01)", "optax.optimistic_gradient_descent(0.01)"),
    # Matrices.
    Row("Muon(0.02, nesterov=False)", "contrib.muon(0.02, nesterov=False)", 1e-6, shapes=MATRICES),
    Row(
        "Muon(0.02)",
        "contrib.muon(0.02)",
        0.01,
        "optax corrects momentum and gradient for their start, each by itself, before Nesterov's "
        "sum of them: another mixture than the authors'",
        shapes=MATRICES,
    ),
    # Rates that find themselves.
    Row("Prodigy(use_bias_correction=True)", "contrib.prodigy(1.0)"),
    Row(
        "Prodigy(use_bias_correction=True, safeguard_warmup=True, weight_decay=0.1, d_coef=2.0)",
        "contrib.prodigy(1.0, safeguard_warmup=True, weight_decay=0.1, estim_lr_coef=2.0)",
    ),
    Row(
        "DAdaptAdamW(use_bias_correction=True, weight_decay=0.1)",
        "contrib.dadapt_adamw(1.0, weight_decay=0.1)",
    ),
    Row("DoG(reps_rel=0.001)", 'contrib.dog(1.0, init_step=("heuristic", 0.001))'),
    Row("DoWG()", "contrib.dowg(1.0)"),
    Row("COCOB()", "contrib.cocob(1.0)"),
    Row(
        "Mechanic(SGD(1.0), s_init=1e-6)",
        "contrib.mechanize(optax.sgd(1.0))",
        0.5,
        "optax keeps what a bet may lose within the largest size of h so far, and keeps r itself "
        "when it is negative; the authors' code, and this, does neither",
    ),
    # Around others.
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
    """`contrib` is `optax.contrib`, `jnp` is `jax.numpy`."""
    import jax
    import optax
    import optax.contrib

    optimizer = eval(theirs, dict(optax=optax, contrib=optax.contrib, jnp=jax.numpy))
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
