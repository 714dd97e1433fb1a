"""The propositions of Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019."""

import numpy as np
import pytest
import references
from cases import gradients, run, variables

import tf_decoupled as td


@pytest.mark.parametrize("rate,decay", [(0.1, 0.05), (0.5, 0.2), (0.01, 0.003)])
def test_proposition_1_for_sgd_decay_is_l2_with_the_decay_over_the_rate(rate, decay):
    """θ ← (1 − λ) θ − α ∇f  is SGD on  f + λ'/2 ‖θ‖²  with λ' = λ/α."""
    grads = gradients(steps=20)
    decoupled = td.SGD(rate, weight_decay=decay, decay_coupling="schedule")
    coupled = td.SGD(rate, l2=decay / rate)
    for a, b in zip(
        run(decoupled, variables(), grads), run(coupled, variables(), grads), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_proposition_2_for_adam_no_l2_equals_the_decay():
    """For any λ', Adam's L2 moves at least one weight elsewhere than the decay does."""
    (start,), scales = variables([(6,)]), np.float32(10.0) ** np.arange(-3, 3)
    start = start.numpy()
    rng = np.random.default_rng(4)
    grads = [[(rng.normal(size=6) * scales).astype("float32")] for _ in range(20)]

    def end(optimizer):
        return run(optimizer, variables([(6,)]), grads, graph=True)[0]

    target = end(td.AdamW(0.01, weight_decay=0.02, decay_coupling="schedule"))
    adam, searched = td.Adam(0.01), []
    for l2 in np.logspace(-6, 3, 60):
        adam.reset_state()
        adam.l2 = l2
        searched.append(np.max(np.abs(end_of(adam, grads) - target)))
    moved = np.max(np.abs(target - end(td.Adam(0.01))))
    assert min(searched) > 0.2 * moved


def end_of(optimizer, grads):
    """As `run`, on the same variables again: an optimizer that is built is not built anew."""
    if not optimizer.built:
        optimizer.build(variables([(6,)]))
    (cell,) = optimizer.cells
    cell.variable.assign(variables([(6,)])[0])
    for gs in grads:
        optimizer.apply(gs)
    return cell.variable.numpy()


@pytest.mark.parametrize("seed", range(3))
def test_proposition_3_with_a_fixed_preconditioner_decay_is_l2_scaled_by_root_s(seed):
    """θ ← (1 − λ) θ − α ∇f / s  is the preconditioned step on  f + λ'/2 ‖θ ⊙ √s‖²,  λ' = λ/α."""

    class Preconditioned(td.SGD):
        """SGD with g / s for a fixed s."""

        def step(self, p, g, s, h):
            return super().step(p, g / SCALE, s, h)

    rng = np.random.default_rng(seed)
    SCALE = rng.uniform(0.1, 3.0, (3, 4)).astype("float32")
    α, λ = 0.1, 0.02
    grads = gradients([(3, 4)], steps=15, seed=seed)
    (θ,) = variables([(3, 4)], seed=seed)
    expected = θ.numpy().astype(np.float64)
    for (g,) in grads:  # the gradient of λ'/2 ‖θ ⊙ √s‖² is λ' s θ
        expected = expected - α / SCALE * (g + λ / α * SCALE * expected)
    optimizer = Preconditioned(α, weight_decay=λ, decay_coupling="schedule")
    (ours,) = run(optimizer, [θ], grads)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_adam_without_momentum_is_rmsprop_with_bias_correction():
    grads, start = gradients(steps=50), [v.numpy() for v in variables()]
    ours = run(td.Adam(0.01, beta_1=0.0), variables(), grads, graph=True)
    for i, (a, p) in enumerate(zip(ours, start, strict=True)):
        expected = references.rmsprop(p, [gs[i] for gs in grads], learning_rate=0.01)
        np.testing.assert_allclose(a, expected, rtol=1e-5, atol=1e-6)


def test_algorithm_2_multiplies_the_decay_by_the_schedule_and_not_by_the_rate():
    """θ ← θ − η_t (α m̂/(√v̂ + ε) + λ θ): with no gradient, θ shrinks by η_t λ whatever α is."""
    zero = [[np.zeros(3, "float32")]] * 4
    ends = []
    for α in (1e-4, 1e-1):
        (v,) = variables([(3,)])
        schedule = td.schedules.Linear(α, 4)
        run(td.AdamW(schedule, weight_decay=0.1, decay_coupling="schedule"), [v], zero)
        ends.append(v.numpy())
    expected = variables([(3,)])[0].numpy() * np.prod([1 - 0.1 * η for η in (1, 0.75, 0.5, 0.25)])
    for end in ends:
        np.testing.assert_allclose(end, expected, rtol=1e-5)


def test_directions_do_not_depend_on_the_scale_of_the_gradient():
    grads = gradients([(3, 4)], steps=5)
    scaled = [[g * np.float32(2.0**10) for g in gs] for gs in grads]
    for optimizer in (td.AdamW, td.Lion):
        options = {"epsilon": 0.0} if optimizer is td.AdamW else {}
        a = run(optimizer(0.01, **options), variables([(3, 4)]), grads)[0]
        b = run(optimizer(0.01, **options), variables([(3, 4)]), scaled)[0]
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_lamb_step_is_the_rate_times_the_norm():
    (v,), (grads,) = variables([(3, 4)]), gradients([(3, 4)], steps=1)
    start = v.numpy()
    run(td.LAMB(0.01, weight_decay=0.5), [v], [grads])
    np.testing.assert_allclose(
        np.linalg.norm(v.numpy() - start), 0.01 * np.linalg.norm(start), rtol=1e-5
    )


def test_lookahead_with_a_whole_step_is_its_inner_optimizer():
    grads = gradients(steps=7)
    wrapped = td.Lookahead(td.AdamW(0.01), sync_period=2, slow_step_size=1.0)
    for a, b in zip(
        run(wrapped, variables(), grads), run(td.AdamW(0.01), variables(), grads), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_adafactor_s_state_is_a_row_and_a_column():
    (matrix,) = variables([(256, 512)])
    optimizer = td.Adafactor()
    optimizer.build([matrix])
    slots = [v for name, v in optimizer.get_state().items() if ":" in name]
    assert sum(v.size for v in slots) == 256 + 512
