"""td.addons takes the steps of TensorFlow Addons' optimizers.

The numbers that are called published stand in the tests of TensorFlow Addons 0.23, to their
tolerances; the formulas beside them are written from its documentation.
"""

import functools
import inspect
import pathlib
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td

A = td.addons
STARTS = ([1.0, 2.0], [3.0, 4.0])
GRADS = ([0.1, 0.2], [0.03, 0.04])  # of most published tests
SAME = ([0.1, 0.1], [0.01, 0.01])
eager = functools.partial(dict, jit_compile=False)


def variables(starts=STARTS):
    return [keras.Variable(start, name=f"var{i}") for i, start in enumerate(starts)]


def rows(index, value):
    """The gradient of one row of two."""
    return tf.IndexedSlices(tf.constant([value]), tf.constant([index]), tf.constant([2]))


SPARSE = (rows(0, 0.1), rows(1, 0.04))


def run(optimizer, grads=GRADS, steps=1, starts=STARTS):
    """Where the variables are after so many steps with the same gradients."""
    trained = variables(starts)
    optimizer.build(trained)
    gradients = [g if isinstance(g, tf.IndexedSlices) else tf.constant(g) for g in grads]

    @tf.function(autograph=False)
    def step():
        optimizer.apply(gradients, trained)

    for _ in range(steps):
        step()
    return [v.numpy() for v in trained]


def made(name, *args, **kwargs):
    return getattr(A, name)(*args, **eager(kwargs))


def ranger(name, **kwargs):
    inner = made(name, lr=1e-3, beta_1=0.95, **kwargs)
    return A.Lookahead(inner, sync_period=6, slow_step_size=0.45)


def scheduled(name, **kwargs):
    schedules = keras.optimizers.schedules
    rate = schedules.ExponentialDecay(1e-3, 50, 0.5)
    decay = schedules.InverseTimeDecay(2e-3, 25, 0.25)
    return made(name, rate, weight_decay=decay, **kwargs)


rectified = functools.partial(made, "RectifiedAdam", lr=1e-3)
belief = functools.partial(made, "AdaBelief", lr=1e-3, rectify=False)
novograd = functools.partial(made, "NovoGrad", lr=0.1, epsilon=1e-8)
proximal = functools.partial(made, "ProximalAdagrad", lr=3.0, initial_accumulator_value=0.1)
WARM = dict(warmup_proportion=0.1, min_lr=1e-5)
NOVO = ([0.1, 0.2], [0.3, 0.4])

PUBLISHED = {
    "RectifiedAdam": (rectified, GRADS, 100, [[0.985769, 1.985269], [2.986119, 3.986068]]),
    "RectifiedAdam, amsgrad": (
        *(lambda: rectified(amsgrad=True), GRADS, 100),
        [[0.985769, 1.985269], [2.986119, 3.986068]],
    ),
    "RectifiedAdam, decay": (
        *(lambda: rectified(weight_decay=0.01), GRADS, 100),
        [[0.984775, 1.983276], [2.983125, 3.982076]],
    ),
    "RectifiedAdam, warm-up": (
        *(lambda: rectified(total_steps=100, **WARM), GRADS, 100),
        [[0.994062, 1.993912], [2.994167, 3.994152]],
    ),
    "RectifiedAdam, sparse": (rectified, SPARSE, 200, [[0.959333, 2.0], [3.0, 3.959632]]),
    "RectifiedAdam, sparse warm-up": (
        *(lambda: rectified(total_steps=200, **WARM), SPARSE, 200),
        [[0.982629, 2.0], [3.0, 3.982674]],
    ),
    "RectifiedAdam, Lookahead": (
        *(lambda: ranger("RectifiedAdam"), GRADS, 100),
        [[0.993126, 1.992901], [2.993283, 3.993261]],
    ),
    "RectifiedAdam, schedules": (
        *(lambda: scheduled("RectifiedAdam"), GRADS, 100),
        [[0.993192, 1.992625], [2.993369, 3.993239]],
    ),
    "AdaBelief": (belief, GRADS, 100, [[0.66723955, 1.6672393], [2.6672382, 3.6672382]]),
    "AdaBelief, amsgrad": (
        *(lambda: belief(amsgrad=True), GRADS, 100),
        [[0.67249274, 1.6724932], [2.6724923, 3.6724923]],
    ),
    "AdaBelief, decay": (
        *(lambda: belief(weight_decay=0.01), GRADS, 100),
        [[0.66637343, 1.6653734], [2.6643748, 3.6633751]],
    ),
    "AdaBelief, warm-up": (
        *(lambda: belief(total_steps=100, **WARM), GRADS, 100),
        [[0.85635465, 1.8563547], [2.8563545, 3.8563545]],
    ),
    "AdaBelief, sparse warm-up, on after its end": (
        *(lambda: belief(total_steps=100, **WARM), SPARSE, 200),
        [[0.8502214, 2.0], [3.0, 3.85022]],
    ),
    "AdaBelief, rectified": (
        *(lambda: made("AdaBelief", lr=1e-3), SPARSE, 200),
        [[0.7836679, 2.0], [3.0, 3.7839665]],
    ),
    "AdaBelief, Lookahead": (
        *(lambda: ranger("AdaBelief", rectify=False), GRADS, 100),
        [[0.88910455, 1.889104], [2.8891046, 3.8891046]],
    ),
    "AdaBelief, schedules": (
        *(lambda: scheduled("AdaBelief", rectify=False), GRADS, 100),
        [[0.84216374, 1.8420818], [2.8420012, 3.841918]],
    ),
    "NovoGrad": (
        *(novograd, NOVO, 1),
        [[0.9552786425, 1.9105572849], [2.9400000012, 3.9200000016]],
    ),
    "NovoGrad, decay": (
        *(lambda: novograd(weight_decay=0.1), NOVO, 1),
        [[0.945278642, 1.8905572849], [2.9100000012, 3.8800000016]],
    ),
    "NovoGrad, averaging": (
        *(lambda: novograd(grad_averaging=True), NOVO, 2),
        [[0.9105572849, 1.8211145698], [2.8800000024, 3.8400000032]],
    ),
    "NovoGrad, sparse averaging": (
        *(lambda: novograd(grad_averaging=True), (rows(0, 0.1), rows(1, 0.4)), 2),
        [[0.8, 2.0], [3.0, 3.8]],
    ),
    "COCOB": (lambda: made("COCOB"), GRADS, 10, [[0.84528893, 1.845289], [2.845289, 3.845289]]),
    "COCOB(20)": (
        *(lambda: made("COCOB", 20), GRADS, 7),
        [[0.09346926, 1.0934693], [2.0934694, 3.0934694]],
    ),
    "COCOB(55.7)": (
        *(lambda: made("COCOB", 55.7), GRADS, 5),
        [[0.89307845, 1.8930784], [2.8930783, 3.8930783]],
    ),
}
SWAPPED, SLOW = ([1.0, 2.0], [4.0, 3.0]), ([0.1, 0.2], [0.01, 0.02])
PROXIMAL = {
    "plain": ({}, [[-6.722771, -9.230448], [3.0539124, 1.1230775]]),
    "l1": (
        dict(l1_regularization_strength=0.001),
        [[-6.663634, -9.190331], [2.9593036, 1.0292315]],
    ),
    "l1, l2": (
        dict(l1_regularization_strength=0.001, l2_regularization_strength=2.0),
        [[-0.0495, -0.0995], [-0.0045, -0.0095]],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_come_out(name):
    make, grads, steps, expected = PUBLISHED[name]
    ours = run(make(), grads, steps)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", PROXIMAL)
def test_the_published_numbers_of_proximal_adagrad_come_out(name):
    options, expected = PROXIMAL[name]
    np.testing.assert_allclose(run(proximal(**options), SLOW, 10, SWAPPED), expected, rtol=2e-5)


def test_the_published_averages_come_out():
    average = A.MovingAverage(td.SGD(2.0, jit_compile=False), average_decay=0.5)
    trained = variables()
    for _ in range(2):
        average.apply([tf.constant(g) for g in SAME], trained)
    np.testing.assert_allclose([v.numpy() for v in trained], [[0.6, 1.6], [2.96, 3.96]], rtol=1e-6)
    average.assign_average_vars(trained)
    told = [[0.75, 1.75], [2.975, 3.975]]
    np.testing.assert_allclose([v.numpy() for v in trained], told, rtol=1e-6)
    average.apply([tf.constant([0.0, 0.0])] * 2, trained)  # and there it goes on
    np.testing.assert_allclose([v.numpy() for v in trained], told, rtol=1e-6)


@pytest.mark.parametrize(
    "options, rate, expected",
    [
        (dict(start_step=1), 1.0, [0.85, 1.85]),
        (dict(dynamic_decay=True), 2.0, [0.64, 1.64]),
    ],
)
def test_the_published_averages_of_other_starts_come_out(options, rate, expected):
    average = A.MovingAverage(td.SGD(rate, jit_compile=False), average_decay=0.5, **options)
    trained = variables(STARTS[:1])
    for _ in range(2):
        average.apply([tf.constant([0.1, 0.1])], trained)
    with average.evaluation_weights():
        np.testing.assert_allclose(trained[0].numpy(), expected, rtol=1e-6)


def test_the_published_stochastic_average_comes_out():
    swa = A.SWA(td.SGD(1.0, jit_compile=False), 0, 1)
    trained = variables(([1.0, 1.0], [2.0, 2.0]))
    for _ in range(3):
        swa.apply([tf.constant([0.1, 0.1])] * 2, trained)
    np.testing.assert_allclose([v.numpy() for v in trained], [[0.7] * 2, [1.7] * 2], rtol=1e-6)
    swa.assign_average_vars(trained)
    np.testing.assert_allclose([v.numpy() for v in trained], [[0.8] * 2, [1.8] * 2], rtol=1e-6)


@pytest.mark.parametrize("start, period", [(0, 2), (3, 2), (1, 3)])
def test_swa_averages_the_steps_that_addons_averaged(start, period):
    swa = A.SWA(td.SGD(1.0, jit_compile=False), start_averaging=start, average_period=period)
    trained, seen = variables(STARTS[:1]), []
    for i in range(8):
        swa.apply([tf.constant([0.1 * (i + 1), 0.1])], trained)
        if i >= start and (i - start) % period == 0:
            seen.append(trained[0].numpy())
    with swa.evaluation_weights():
        np.testing.assert_allclose(trained[0].numpy(), np.mean(seen, 0), rtol=1e-6)


def test_weights_are_swapped_with_their_averages_and_back():
    average = A.MovingAverage(td.SGD(2.0, jit_compile=False), average_decay=0.5)
    average.shadow_copy(trained := variables(STARTS[:1]))
    assert average.has_shadow_copy
    average.apply([tf.constant([0.1, 0.1])], trained)
    for expected in ([0.9, 1.9], [0.8, 1.8], [0.9, 1.9]):  # published
        average.swap_weights()
        np.testing.assert_allclose(trained[0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("k, α", [(5, 0.3), (10, 0.7)])
def test_lookahead_ends_at_the_share_alpha_of_keras_adams_way(k, α):
    fast = keras.optimizers.Adam()
    trained = variables()
    for _ in range(k):
        fast.apply([tf.constant(g) for g in GRADS], trained)
    slow = run(A.Lookahead("adam", sync_period=k, slow_step_size=α), GRADS, k)
    for start, quick, ours in zip(STARTS, trained, slow, strict=True):
        expected = start + (quick.numpy() - start) * α
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


# Formulas, where the published tests have formulas too.


def adamw(p, g, t, s, lr=1e-3, b1=0.9, b2=0.999, eps=1e-7, wd=0.0):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
    return p - wd * p - rate * s["m"] / (np.sqrt(s["v"]) + eps)


def sgdw(p, g, t, s, lr=1e-3, momentum=0.0, wd=0.0):
    s["m"] = momentum * s.get("m", 0) - lr * g
    return p - wd * p + s["m"]


def lamb(p, g, t, s, lr=1e-3, eps=1e-6, wd=0.0, adapts=True):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    u = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + eps) + wd * p
    return p - lr * u * (np.linalg.norm(p) / np.linalg.norm(u) if adapts else 1)


def yogi(p, g, t, s, lr=0.01, b1=0.9, eps=1e-3, l1=0.0, l2=0.0, first=1.0, sign=np.sign):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    v = s.get("v", np.full_like(p, first))
    s["v"] = v + 0.001 * sign(g * g - v) * g * g
    a = lr * np.sqrt(1 - 0.999**t) / (1 - b1**t) / (np.sqrt(s["v"]) + eps)
    w = p - a * s["m"]
    return np.sign(w) * np.maximum(np.abs(w) - a * l1, 0) / (1 + a * l2)


def conditional(p, g, t, s, lr=0.5, lambda_=0.01):
    return p * lr - (1 - lr) * lambda_ * g / np.linalg.norm(g)


def expected(formula, grads, steps=3, starts=STARTS, **letters):
    ends = []
    for p, g in zip(np.array(starts), np.array(grads), strict=True):
        kept = {}
        for t in range(1, steps + 1):
            p = formula(p, g, t, kept, **letters)
        ends.append(p)
    return ends


R = dict(l1_regularization_strength=0.1, l2_regularization_strength=0.2)
FORMULAS = {
    "AdamW": (lambda: made("AdamW", 0.01), adamw, dict(wd=0.01)),
    "AdamW, by position": (
        lambda: made("AdamW", 0.01, 1e-2, 0.8, 0.99, 1e-3),
        *(adamw, dict(wd=0.01, lr=1e-2, b1=0.8, b2=0.99, eps=1e-3)),
    ),
    "SGDW": (
        lambda: made("SGDW", weight_decay=0.01, learning_rate=1e-3, momentum=0.9),
        *(sgdw, dict(wd=0.01, momentum=0.9)),
    ),
    "SGDW, defaults": (lambda: made("SGDW", 0.01), sgdw, dict(wd=0.01)),
    "LAMB": (lambda: made("LAMB"), lamb, {}),
    "LAMB, decay": (lambda: made("LAMB", weight_decay_rate=0.01), lamb, dict(wd=0.01)),
    "LAMB, no ratio": (
        lambda: made("LAMB", weight_decay=0.01, exclude_from_layer_adaptation=["var"]),
        *(lamb, dict(wd=0.01, adapts=False)),
    ),
    "Yogi": (lambda: made("Yogi", initial_accumulator_value=1.0), yogi, {}),
    "Yogi, tanh": (
        lambda: made("Yogi", initial_accumulator_value=1.0, activation="tanh"),
        *(yogi, dict(sign=lambda x: np.tanh(10 * x))),
    ),
    "Yogi, l1, l2": (
        lambda: made("Yogi", beta1=0.0, initial_accumulator_value=1.0, **R),
        *(yogi, dict(b1=0.0, l1=0.1, l2=0.2)),
    ),
    "Yogi, defaults": (lambda: made("Yogi"), yogi, dict(first=1e-6)),
    "ConditionalGradient": (lambda: made("ConditionalGradient", 0.5), conditional, {}),
    "ConditionalGradient, nuclear": (
        lambda: made("ConditionalGradient", learning_rate=0.5, ord="nuclear"),
        *(conditional, {}),
    ),
    "LazyAdam": (lambda: made("LazyAdam"), adamw, {}),
    "extended": (
        lambda: A.extend_with_decoupled_weight_decay(keras.optimizers.Adam)(weight_decay=0.01),
        *(adamw, dict(wd=0.01)),
    ),
    "extended, ours": (
        lambda: A.extend_with_decoupled_weight_decay(td.SGD)(0.01, learning_rate=1e-3),
        *(sgdw, dict(wd=0.01)),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_three_steps_are_those_of_addons_formula(name):
    make, formula, letters = FORMULAS[name]
    ours = run(make(), SAME, 3)
    np.testing.assert_allclose(ours, expected(formula, SAME, **letters), rtol=3e-6, atol=1e-7)


def test_decay_of_old_keras_divides_the_rate():
    ours = run(made("LAMB", 1e-3, decay=0.5, epsilon=1e-7, weight_decay=0.01), SAME, 3)
    p, kept = np.array(STARTS[0]), {}
    for t in (1, 2, 3):
        rate = 1e-3 / (1 + 0.5 * (t - 1))
        p = lamb(p, np.array(SAME[0]), t, kept, lr=rate, eps=1e-7, wd=0.01)
    np.testing.assert_allclose(ours[0], p, rtol=1e-6)


def test_novograd_keeps_the_rate_and_the_decay_in_its_momentum():
    rates = [0.1, 0.1 / 2, 0.1 / 3]
    opt = made("NovoGrad", td.schedules.InverseTime(0.1, 1, 1.0), weight_decay=0.1)
    p, m, v = np.array([1.0, 2.0]), 0.0, 0.0
    g = np.array([0.3, 0.4])
    for i, rate in enumerate(rates):
        v = 0.999 * v + 0.001 * 0.25 if i else 0.25
        m = 0.9 * m + rate * (g / (np.sqrt(v) + 1e-7) + 0.1 * p)
        p = p - m
    np.testing.assert_allclose(run(opt, [g.astype("float32")], 3, STARTS[:1])[0], p, rtol=2e-5)


def test_excluded_names_decay_no_more_and_are_saved():
    opt = made("AdamW", 0.01, exclude_from_weight_decay=["var1", "bias"])
    copy = A.AdamW.from_config(opt.get_config())
    for each in (opt, copy):
        each.build(variables())
        assert [row.decays for row in each.decay_report().rows] == [True, False]


def test_what_is_excluded_from_the_decay_is_excluded_from_the_ratio_as_well():
    opt = made("LAMB", weight_decay=0.01, exclude_from_weight_decay=["var1"])
    first, second = run(opt, SAME, 3)
    adapted, plain = expected(lamb, SAME, wd=0.01), expected(lamb, SAME, adapts=False)
    np.testing.assert_allclose([first, second], [adapted[0], plain[1]], rtol=1e-6)


def test_rows_that_a_gradient_has_not_stand_still_under_lazy_adam():
    def end(grads):
        opt, table = made("LazyAdam", 0.1), keras.Variable([[1.0], [2.0]], name="table")
        for g in grads:
            opt.apply([g], [table])
        opt.catch_up_rows()
        return table.numpy()[:, 0]

    slices = [
        tf.IndexedSlices(tf.constant([[g]]), tf.constant([i]), tf.constant([2, 1]))
        for i, g in ((0, 1.0), (1, 2.0), (1, -1.0), (0, 3.0))
    ]
    ours = end(slices)
    for row, steps in ((0, {1: 1.0, 4: 3.0}), (1, {2: 2.0, 3: -1.0})):
        p, kept = np.float64(row + 1), {}
        for t, g in steps.items():  # Adam's t counts all steps, its moments those with the row
            p = adamw(p, g, t, kept, lr=0.1)
        np.testing.assert_allclose(ours[row], p, rtol=1e-6)


# Schedules.

SHAPES = {
    "TriangularCyclicalLearningRate": (40, {}, lambda c, n: 1.0),
    "Triangular2CyclicalLearningRate": (30, {}, lambda c, n: 2.0 ** (1 - c)),
    "ExponentialCyclicalLearningRate": (200, dict(gamma=0.996), lambda c, n: 0.996**n),
}


@pytest.mark.parametrize("name", SHAPES)
def test_cyclical_rates_are_those_of_the_published_tests(name):
    s, options, factor = SHAPES[name]
    schedule = getattr(A, name)(0.1, 1, s, **options)
    schedule = type(schedule).from_config(schedule.get_config())
    n = np.arange(4 * s + 1)
    c = np.floor(1 + n / (2 * s))
    told = 0.1 + 0.9 * np.maximum(0, 1 - np.abs(n / s - 2 * c + 1)) * factor(c, n)
    np.testing.assert_allclose(schedule(n), told, rtol=1e-5)
    assert td.schedules.peak_of(schedule) == 1


@keras.saving.register_keras_serializable("test_addons")
def fifths(x):
    return 1 / 5 ** (x * 0.0001)


@pytest.mark.parametrize("mode", ["cycle", "iterations"])
def test_a_cyclical_rate_takes_a_function_of_cycles_or_steps(mode):
    schedule = A.CyclicalLearningRate(0.1, 1, 400, fifths, scale_mode=mode)
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(td.SGD(schedule)))
    n = np.arange(801)
    c = np.floor(1 + n / 800)
    height = np.maximum(0, 1 - np.abs(n / 400 - 2 * c + 1))
    told = 0.1 + 0.9 * height * fifths(c if mode == "cycle" else n)
    np.testing.assert_allclose(optimizer.given.learning_rate(n), told, rtol=1e-5)


def test_a_coupling_that_needs_the_peak_of_a_function_asks_for_it():
    rate = A.CyclicalLearningRate(0.1, 1, 400, fifths)
    with pytest.raises(ValueError, match="base_learning_rate"):
        td.AdamW(rate, decay_coupling="schedule")


# Layers.


def small(layers=3):
    return keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(layers))])


def test_a_multi_optimizer_gives_layers_their_optimizers_and_leaves_others_as_they_are():
    model = small()
    pairs = [(td.SGD(1.0), model.layers[0]), (td.SGD(0.1), [model.layers[2]])]
    opt = A.MultiOptimizer(pairs, clipnorm=100.0, jit_compile=False)
    opt = keras.optimizers.deserialize(keras.optimizers.serialize(opt))
    before = model.get_weights()
    opt.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    moved = [
        np.unique(np.round(b - a, 5)) for b, a in zip(before, model.get_weights(), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(moved), [1, 1, 0, 0, 0.1, 0.1])


def test_wrong_pairs_of_a_multi_optimizer_are_told():
    model = small()
    with pytest.raises(ValueError, match="Received twice: \\['sequential/dense/bias'"):
        A.MultiOptimizer([(td.SGD(0.1), model), (td.SGD(1.0), model.layers[0])])
    with pytest.raises(ValueError, match="have no variables to train: build the model"):
        A.MultiOptimizer([(td.SGD(0.1), keras.layers.Dense(1))])
    with pytest.raises(TypeError, match=r"td.Partition\(\[\(td.masks.only"):
        A.MultiOptimizer(optimizer_specs=[])
    with pytest.raises(TypeError, match="must be pairs"):
        A.MultiOptimizer([td.SGD(0.1)])


# The callback.


@pytest.mark.parametrize("updates", [True, False])
def test_the_checkpoint_has_the_averages(tmp_path, updates):
    file, seen = tmp_path / "{epoch}.keras", []

    class See(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([self.model.get_weights(), averages(self.model)])

    def averages(model):
        with model.optimizer.evaluation_weights():
            return model.get_weights()

    model = small(1)
    model.compile(A.MovingAverage(td.SGD(0.1, jit_compile=False), 0.9), "mse")
    callbacks = [See(), A.AverageModelCheckpoint(updates, str(file)), See()]
    x = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    model.fit(x, 3 * x, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    (_, average), (after, _) = seen[2:]
    saved = keras.models.load_model(str(file).format(epoch=2)).get_weights()
    raw = seen[2][0]
    for a, b in zip(saved, average, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(after, average if updates else raw, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(raw, average, strict=True))


def test_the_checkpoint_refuses_optimizers_without_averages_and_steps(tmp_path):
    model = small(1)
    model.compile(td.SGD(0.1), "mse")
    callback = A.AverageModelCheckpoint(True, str(tmp_path / "a.keras"))
    with pytest.raises(TypeError, match="needs an optimizer of this library that keeps averages"):
        callback.set_model(model)
    with pytest.raises(ValueError, match="saves at the end of epochs"):
        A.AverageModelCheckpoint(True, str(tmp_path / "a.keras"), save_freq=10)


# Being optimizers of this library.

ALL = {
    "AdamW": lambda: A.AdamW(0.01),
    "SGDW": lambda: A.SGDW(0.01, momentum=0.9),
    "LAMB": lambda: A.LAMB(weight_decay=0.01, exclude_from_layer_adaptation=["bias"]),
    "LazyAdam": A.LazyAdam,
    "RectifiedAdam": lambda: A.RectifiedAdam(amsgrad=True, total_steps=10),
    "AdaBelief": lambda: A.AdaBelief(amsgrad=True, rectify=False),
    "NovoGrad": lambda: A.NovoGrad(amsgrad=True),
    "Yogi": A.Yogi,
    "COCOB": A.COCOB,
    "ConditionalGradient": lambda: A.ConditionalGradient(0.9),
    "ProximalAdagrad": A.ProximalAdagrad,
    "Lookahead": lambda: A.Lookahead(A.AdamW(0.01)),
    "MovingAverage": lambda: A.MovingAverage("sgd", num_updates=3, start_step=1),
    "SWA": lambda: A.SWA("sgd", start_averaging=1),
}


def moving(trained, t):
    rng = np.random.default_rng(t)
    return [tf.constant(rng.normal(size=v.shape), "float32") for v in trained]


@pytest.mark.parametrize("name", ALL)
def test_configuration_and_state_make_the_same_optimizer_again(name):
    optimizer, trained = ALL[name](), variables()
    for t in range(3):
        optimizer.apply(moving(trained, t), trained)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is type(optimizer) is getattr(A, name)
    assert copy.get_config() == optimizer.get_config()
    others = [keras.Variable(v.numpy(), name=v.name) for v in trained]
    copy.build(others)
    copy.set_state(optimizer.get_state())
    optimizer.apply(moving(trained, 3), trained)
    copy.apply(moving(trained, 3), others)
    for a, b in zip(trained, others, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["LAMB", "MovingAverage"])
def test_a_model_is_saved_and_loaded_with_it(name, tmp_path):
    model = small(1)
    model.compile(ALL[name](), "mse")
    model.optimizer.apply(moving(model.trainable_variables, 0), model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is getattr(A, name)
    assert repr(pickle.loads(pickle.dumps(loaded.optimizer))) == repr(model.optimizer)
    for each in (model, loaded):
        each.optimizer.apply(moving(each.trainable_variables, 1), each.trainable_variables)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_namesakes_are_loaded_as_what_they_were():
    for cls in (td.AdamW, td.LAMB, td.Yogi, td.Lookahead):
        assert keras.saving.get_registered_object(f"tf_decoupled>{cls.__name__}") is cls
        name = f"tf_decoupled.addons>{cls.__name__}"
        assert keras.saving.get_registered_object(name) is getattr(A, cls.__name__)


def test_state_moves_between_namesakes():
    ours, theirs = td.AdamW(1e-3), A.AdamW(0.01)
    run(ours), theirs.build(variables())
    theirs.set_state(ours.get_state())
    np.testing.assert_array_equal(theirs.iterations, 1)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: A.AdamW(learning_rate=0.1), TypeError, "AdamW needs `weight_decay`"),
        (lambda: A.ConditionalGradient(), TypeError, "needs `learning_rate`"),
        (lambda: A.ConditionalGradient(1.5), ValueError, "number in \\[0, 1\\)"),
        (lambda: A.AdaBelief(lr=0.1, learning_rate=0.1), TypeError, "`lr` and `learning_rate`"),
        (lambda: A.COCOB(0.5), ValueError, "a number >= 1"),
        (lambda: A.COCOB(use_locking=True), TypeError, "A step is one computation"),
        (lambda: A.RectifiedAdam(total_steps=1.5), ValueError, "an integer >= 0"),
        (lambda: A.Lookahead("adamw"), ValueError, "knows adam, sgd"),
        (lambda: A.Lookahead(None), TypeError, "around an optimizer of this library"),
        (lambda: A.SWA(keras.optimizers.SGD()), TypeError, "around an optimizer of this library"),
        (lambda: A.MovingAverage("sgd", num_updates=1.0), TypeError, "dynamic_decay=True"),
        (lambda: A.SWA("sgd", start_averaging=-1), ValueError, "an integer >= 0"),
        (lambda: A.LAMB(exclude_from_layer_adaptation=["("]), ValueError, "Not a regular"),
        (lambda: A.AdamW(0.1, decay="x"), TypeError, "InverseTime"),
        (
            lambda: A.AdamW(0.1, exclude_from_weight_decay="bias"),
            *(TypeError, "`var_names` must be a list"),
        ),
        (
            lambda: A.SGDW(0.1).apply_gradients([], decay_var_list=[1]),
            *(TypeError, "in place of `decay_var_list` give the constructor `decay_mask="),
        ),
        (
            lambda: type("Mine", (A.DecoupledWeightDecayExtension, keras.optimizers.Adam), {}),
            *(TypeError, r"extend_with_decoupled_weight_decay\(tf.keras.optimizers.Adam\)"),
        ),
        (
            lambda: A.extend_with_decoupled_weight_decay(keras.optimizers.Adam()),
            *(TypeError, "must be an optimizer class"),
        ),
        (lambda: A.TimeStopping, AttributeError, "docs/migrating.md has it"),
        (lambda: A.TQDMProgressBar, AttributeError, "TqdmCallback"),
        (lambda: A.Nothing, AttributeError, "It has .*'AdamW'"),
        (lambda: A.TriangularCyclicalLearningRate(0.1, 1, 2.5), ValueError, "a whole number"),
        (lambda: A.CyclicalLearningRate(0.1, 1, 2, 3), TypeError, "a function of one tensor"),
    ],
)
def test_wrong_calls_say_what_to_write(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_every_name_is_documented_and_every_optimizer_has_a_row_of_its_own_here():
    for name in A.__all__:
        documentation = inspect.getdoc(getattr(A, name))
        assert documentation and documentation[0].isupper()
    optimizers = {
        n for n in A.__all__ if inspect.isclass(x := getattr(A, n)) and issubclass(x, td.Optimizer)
    }
    assert optimizers == set(ALL)
    page = (pathlib.Path(__file__).parents[1] / "docs" / "migrating.md").read_text()
    assert not [name for name in A.__all__ if f"td.addons.{name}" not in page]
