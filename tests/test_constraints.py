"""Projections: what comes out is allowed, and nothing that is allowed is nearer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, run_mirrored

import tf_decoupled as td
from tf_decoupled.constraints import (
    Box,
    KeepNonNegative,
    L1Ball,
    L2Ball,
    LinfBall,
    Projection,
    Simplex,
)

# Each with the largest ⟨d, z⟩ of all allowed z, and how far a point is outside.
SETS = [
    (Simplex(), lambda d: d.max(), lambda z: [-z.min(), abs(z.sum() - 1)]),
    (Simplex(2.5), lambda d: 2.5 * d.max(), lambda z: [-z.min(), abs(z.sum() - 2.5)]),
    (L1Ball(), lambda d: np.abs(d).max(), lambda z: [np.abs(z).sum() - 1]),
    (L1Ball(0.5), lambda d: 0.5 * np.abs(d).max(), lambda z: [np.abs(z).sum() - 0.5]),
    (L2Ball(), np.linalg.norm, lambda z: [np.linalg.norm(z) - 1]),
    (L2Ball(1.5), lambda d: 1.5 * np.linalg.norm(d), lambda z: [np.linalg.norm(z) - 1.5]),
    (LinfBall(0.5), lambda d: 0.5 * np.abs(d).sum(), lambda z: [np.abs(z).max() - 0.5]),
    (
        Box(-0.5, 0.25),
        lambda d: np.maximum(-0.5 * d, 0.25 * d).sum(),
        lambda z: [z.max() - 0.25, -0.5 - z.min()],
    ),
]
# Without bounds: what d = y − x must not be above, and how far a point is outside.
CONES = [
    (KeepNonNegative(), lambda d: d.max(), lambda z: -z.min()),
    (Box(low=0.25), lambda d: d.max(), lambda z: 0.25 - z.min()),
    (Box(high=0.25), lambda d: -d.min(), lambda z: z.max() - 0.25),
]
WITH_AXIS = [L1Ball(0.5, axis=0), L2Ball(0.5, axis=0), Simplex(2.0, axis=0)]
EVERY = [each for each, *_ in SETS + CONES] + WITH_AXIS
every = pytest.mark.parametrize("constraint", EVERY, ids=repr)


def points(count=40, size=6):
    """Far and near ones, on a face, in a corner, with equal entries, inside."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(count, size)) * rng.choice([0.05, 0.3, 1, 10], size=(count, 1))
    return [*drawn, np.zeros(size), np.ones(size), -np.ones(size), np.eye(size)[2] * 3]


@pytest.mark.parametrize("constraint,largest,outside", SETS, ids=lambda each: repr(each)[:20])
def test_no_allowed_point_is_nearer(constraint, largest, outside):
    """⟨y − x, z − x⟩ ≤ 0 for all allowed z, which of convex sets only the nearest x fulfils."""
    for y in points():
        x = constraint(y).numpy()
        assert max(outside(x)) <= 1e-12
        d = y - x
        assert largest(d) <= d @ x + 1e-10 * max(1, d @ d)


@pytest.mark.parametrize("constraint,wrong,outside", CONES, ids=lambda each: repr(each)[:20])
def test_no_allowed_point_is_nearer_where_there_are_no_bounds(constraint, wrong, outside):
    for y in points():
        x = constraint(y).numpy()
        assert outside(x) <= 0
        np.testing.assert_array_equal(x[x != y], 0 if constraint == KeepNonNegative() else 0.25)
        assert wrong(y - x) <= 0


@every
def test_what_is_allowed_stays(constraint):
    for y in points():
        once = constraint(y[:, None]).numpy()
        np.testing.assert_allclose(constraint(once), once, atol=1e-12)
    inside = np.full([4, 4], 0.01)
    if not isinstance(constraint, Simplex | Box):
        np.testing.assert_array_equal(constraint(inside), inside)


@pytest.mark.parametrize("cls", [L1Ball, L2Ball, Simplex])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, [0, 1], (0, 2), [2, 1, 0], 2])
def test_each_set_of_entries_is_projected_by_itself(cls, axis):
    w = np.random.default_rng(0).normal(size=(2, 3, 4))
    axes = range(3) if axis is None else np.atleast_1d(axis) % 3
    others = [i for i in range(3) if i not in axes]
    order = [*others, *axes]
    rows = w.transpose(order).reshape(int(np.prod([w.shape[i] for i in others])), -1)
    expected = np.stack([cls(0.5)(row).numpy() for row in rows])
    expected = expected.reshape([w.shape[i] for i in order]).transpose(np.argsort(order))
    np.testing.assert_allclose(cls(0.5, axis=axis)(w), expected, rtol=1e-12, atol=1e-15)


def test_the_norm_of_each_output_is_bounded_as_by_keras():
    w = tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32)
    theirs = keras.constraints.MaxNorm(0.75, axis=0)(w)
    np.testing.assert_allclose(L2Ball(0.75, axis=0)(w), theirs, rtol=1e-5)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_xla_gives_the_same_in_the_precision_that_came(constraint, dtype):
    w = tf.constant(np.random.default_rng(0).normal(size=(3, 4)), dtype)
    compiled = tf.function(constraint, jit_compile=True)(w)
    assert compiled.dtype == w.dtype and compiled.shape == w.shape
    np.testing.assert_allclose(compiled, constraint(w), rtol=1e-5, atol=1e-6)


def test_far_from_the_simplex_nothing_is_rounded_away():
    near = np.float32([0, 0.125, 0.25, 0.5, 0.5, 0.625])
    expected = Simplex()(near)
    assert np.count_nonzero(expected) > 1
    np.testing.assert_array_equal(Simplex()(near + np.float32(2**20)), expected)


def test_scalars_are_sets_of_one():
    for constraint, wanted in ((Simplex(2.0), 2), (L1Ball(), -1), (L2Ball(), -1), (LinfBall(), -1)):
        assert float(constraint(tf.constant(-5.0))) == wanted


def test_huge_entries_dont_overflow_and_nan_stays_in_its_set():
    w = np.float32([[3e30, 1.0], [4e30, 2.0]])
    np.testing.assert_allclose(L2Ball(5.0, axis=0)(w)[:, 0], [3, 4], rtol=1e-6)
    w[0, 0] = np.nan
    for cls in (L1Ball, L2Ball, Simplex):
        made = cls(0.5, axis=0)(w).numpy()
        assert np.isnan(made[:, 0]).any() and np.isfinite(made[:, 1]).all()


@every
def test_a_constraint_is_written_as_it_is_made_and_comes_back_from_its_configuration(constraint):
    config = keras.constraints.serialize(constraint)
    again = keras.constraints.deserialize(config)
    assert again == constraint and hash(again) == hash(constraint)
    assert config["registered_name"] == f"tf_decoupled.constraints>{type(constraint).__name__}"
    names = {type(each).__name__: type(each) for each in EVERY}
    assert eval(repr(constraint), names) == constraint
    assert constraint != Box(-3, 3) and constraint != 3


# In training.


def constrained(constraint, shapes=((4, 3), (4, 3))):
    rng = np.random.default_rng(0)
    first, *others = (keras.Variable(rng.normal(size=s), dtype="float32") for s in shapes)
    first.constraint = constraint
    return [first, *others]


@pytest.mark.parametrize(
    "constraint,compiled",
    [(L1Ball(0.5, axis=0), True), *((each, False) for each in [*WITH_AXIS, Box(-0.5, 0.25)])],
)
def test_a_variable_is_projected_after_each_step_and_others_are_not(constraint, compiled):
    shapes = ((4, 3), (4, 3))
    grads = gradients(shapes, 3)
    trainable = constrained(constraint)
    expected, free = (v.numpy() for v in trainable)
    ends = run(td.SGD(0.5, jit_compile=compiled), trainable, grads, graph=True)
    for g, other in grads:
        expected = constraint(expected - np.float32(0.5) * g).numpy()
        free = free - np.float32(0.5) * other
    np.testing.assert_allclose(ends[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ends[1], free, rtol=1e-5, atol=1e-6)


def test_a_layer_with_a_constraint_is_trained_and_saved(tmp_path):
    layers = [keras.Input([4]), keras.layers.Dense(3, kernel_constraint=Simplex(axis=0))]
    model = keras.Sequential(layers)
    model.compile(td.AdamW(0.1, jit_compile=False), "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model.fit(x, x[:, :3], verbose=0)
    np.testing.assert_allclose(model.layers[0].kernel.numpy().sum(0), 1, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].kernel_constraint == Simplex(axis=0)
    assert loaded.layers[0].kernel.constraint == Simplex(axis=0)


def test_replicas_are_projected_alike(monkeypatch):
    monkeypatch.setattr("cases.variables", lambda shapes: constrained(L1Ball(0.5, axis=0), shapes))
    shapes, make = ((4, 3), (4, 3)), lambda: td.SGD(0.5, jit_compile=False)
    grads = gradients(shapes, 3)
    expected = run(make(), constrained(L1Ball(0.5, axis=0)), grads)
    for a, b in zip(run_mirrored(make, grads, shapes)[0], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make,error,words",
    [
        (lambda: L1Ball(0), ValueError, "`radius` of L1Ball must be a finite number > 0"),
        (lambda: L2Ball(-1.0), ValueError, "`radius` of L2Ball.*>= 0. Received: radius=-1.0"),
        (lambda: LinfBall("1"), TypeError, "`radius` of LinfBall.*Received: radius='1'"),
        (lambda: Simplex(float("inf")), ValueError, "`total` of Simplex must be a finite"),
        (lambda: Simplex(1e39), ValueError, "`total` of Simplex must be a finite"),
        (lambda: Box(1, 0), ValueError, r"`low` of Box must be at most.*low=1.0, high=0.0"),
        (lambda: Box(float("nan")), ValueError, "`low` of Box must be a finite number"),
        (lambda: L2Ball(axis=0.5), TypeError, "`axis` of L2Ball must be an integer.*axis=0.5"),
        (lambda: L2Ball(axis=[]), TypeError, "`axis` of L2Ball must be an integer"),
        (lambda: L2Ball(axis=2)(np.ones([2, 2])), ValueError, r"axis=2\) .*\(2, 2\) has not"),
        (lambda: Projection()(1.0), NotImplementedError, "Projection must define `project`"),
    ],
)
def test_wrong_arguments_are_told(make, error, words):
    with pytest.raises(error, match=words):
        make()
