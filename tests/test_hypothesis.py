"""Properties of open-ended inputs: shapes, gradients, schedules, masks, arguments, resuming."""

import contextlib
import json
import os
import re
import tempfile

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from cases import CASES, gradients, run, state_of, variables
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from probes import TAKING_ALL

import tf_decoupled as td
from tf_decoupled.engine.concerns.precision import round_stochastically

every = pytest.mark.parametrize("case", TAKING_ALL, ids=lambda case: case.name)
MADE = {case.optimizer: case for case in CASES}  # how each class is made
COUPLINGS = ("learning_rate", "schedule", "independent", "corrected")

# Hypothesis keeps the constants that it finds in the sources; not among them.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{tempfile.gettempdir()}/hypothesis")


def examples(number, **options):
    """The same examples in every run, no database of failures, and no tracing of each line."""
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        **{"phases": phases, **options},
    )


@pytest.fixture(autouse=True, scope="module")
def seeds_and_names():
    """In place of conftest's: once for all tests, as it takes as long as a test.

    And no tracing, which would take most of the time, but in `traced()`.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def traced():
    tf.config.run_functions_eagerly(False)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(True)


# Strategies.


def floats(least, most, **options):
    """Numbers that float32 holds exactly, so that no reference has to round its arguments."""
    least, most = float(np.float32(least)), float(np.float32(most))
    return st.floats(least, most, width=32, allow_subnormal=False, **options)


ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
FULL_SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=3)
SEEDS = st.integers(0, 2**16)
RATES = floats(2**-10, 1)
BETAS = floats(0, 0.999)
LENGTHS = st.integers(1, 12) | st.integers(1, 2**20)


@st.composite
def problems(draw, shape=FULL_SHAPE, steps=3, least=1):
    """Shapes of one to three variables, and a gradient for each at one or more steps."""
    shapes = draw(st.lists(shape, min_size=1, max_size=3))
    steps = draw(st.integers(least, steps))
    return shapes, gradients(shapes, steps, seed=draw(SEEDS))


@st.composite
def holed(draw, least=1):
    """A problem where some gradients are None, but not all of one step."""
    shapes, grads = draw(problems(least=least))
    present = st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)).filter(any)
    where = [draw(present) for _ in grads]
    return shapes, [
        [g if here else None for g, here in zip(gs, row, strict=True)]
        for gs, row in zip(grads, where, strict=True)
    ]


@st.composite
def piecewise(draw, cls, least):
    boundaries = sorted(draw(st.sets(st.integers(least, 20), min_size=1, max_size=4)))
    n = len(boundaries) + 1
    values = draw(st.lists(RATES, min_size=n, max_size=n))
    return cls(boundaries, values)


@st.composite
def joined(draw, each):
    boundaries = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=2)))
    n = len(boundaries) + 1
    return td.schedules.Join(draw(st.lists(each | RATES, min_size=n, max_size=n)), boundaries)


SIMPLE = dict(
    Cosine=st.builds(td.schedules.Cosine, RATES, LENGTHS, alpha=floats(0, 1)),
    Warmed=st.builds(
        td.schedules.Cosine, RATES, LENGTHS, warmup_target=RATES, warmup_steps=st.integers(0, 5)
    ),
    CosineRestarts=st.builds(
        td.schedules.CosineRestarts,
        RATES,
        LENGTHS,
        t_mul=st.sampled_from([1, 1.1, 1.5, 2, 3]),
        m_mul=floats(0.1, 1),
        alpha=floats(0, 1),
        warmup_steps=st.integers(0, 5),
    ),
    Linear=st.builds(td.schedules.Linear, RATES, LENGTHS, RATES),
    InverseSquareRoot=st.builds(td.schedules.InverseSquareRoot, RATES),
    Polynomial=st.builds(
        td.schedules.Polynomial, RATES, LENGTHS, RATES, floats(0.125, 4), st.booleans()
    ),
    Exponential=st.builds(
        td.schedules.Exponential, RATES, LENGTHS, floats(0.125, 1), st.booleans()
    ),
    InverseTime=st.builds(td.schedules.InverseTime, RATES, LENGTHS, floats(0, 4), st.booleans()),
    REX=st.builds(td.schedules.REX, RATES, LENGTHS, RATES),
    OneCycle=st.builds(
        td.schedules.OneCycle,
        RATES,
        st.integers(10, 2**20),
        interpolation=st.sampled_from(["cosine", "linear"]),
        three_phase=st.booleans(),
    ),
    WarmupStableDecay=st.builds(
        td.schedules.WarmupStableDecay,
        RATES,
        st.integers(0, 5),
        st.integers(0, 5),
        LENGTHS,
        st.sampled_from(["linear", "1-sqrt", "1-square", "cosine"]),
        floats(0, 1),
    ),
    Cyclical=st.builds(
        td.schedules.Cyclical, RATES, RATES, LENGTHS, st.sampled_from(["triangular", "exp_range"])
    ),
    PiecewiseConstant=piecewise(td.schedules.PiecewiseConstant, 0),
    PiecewiseInterpolate=piecewise(td.schedules.PiecewiseInterpolate, 1),
)
SCHEDULES = st.recursive(
    st.one_of(*SIMPLE.values()),
    lambda each: (
        st.builds(td.schedules.Warmup, each | RATES, st.integers(0, 5), RATES) | joined(each)
    ),
    max_leaves=3,
)


# Comparisons.


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def same_state(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def apply(optimizer, trainable, grads):
    """One step, that warns of variables whose gradients are None and of no others."""
    missing = [v.path for v, g in zip(trainable, grads, strict=True) if g is None]
    if missing:
        words = re.escape(f"Gradients do not exist for variables {missing}")
        with pytest.warns(UserWarning, match=words):
            optimizer.apply(grads, trainable)
    else:
        optimizer.apply(grads, trainable)


def values(trainable):
    return [v.numpy() for v in trainable]


# Gradients: some missing, sparse, tiny, huge, scaled.


APART = [c for c in TAKING_ALL if not any(rule.reduces() for _, rule in c.make().rules())]


@pytest.mark.parametrize("case", APART, ids=lambda case: case.name)  # sums see all gradients
@examples(4)
@given(problem=holed())
def test_none_gradients_leave_their_variable_and_slots_and_don_t_touch_the_others(case, problem):
    shapes, steps = problem
    make = lambda: case.make(weight_decay=0.1)  # noqa: E731
    optimizer, trainable = make(), variables(shapes)
    optimizer.build(trainable)
    for grads in steps:
        full, others = make(), variables(shapes)
        full.build(others)
        full.set_state(optimizer.get_state())
        for v, w in zip(others, trainable, strict=True):
            v.assign(w)
        before, slots = values(trainable), state_of(optimizer)
        apply(full, others, [np.ones(p.shape, "float32") if g is None else g
                             for g, p in zip(grads, before, strict=True)])  # fmt: skip
        apply(optimizer, trainable, grads)
        here = {v.path for v, g in zip(trainable, grads, strict=True) if g is not None}
        kept, moved = (dict(zip([v.path for v in trainable], p, strict=True))
                       for p in (before, values(others)))  # fmt: skip
        for v in trainable:
            np.testing.assert_array_equal(v, (moved if v.path in here else kept)[v.path])
        expected = state_of(full)
        same_state(
            state_of(optimizer),
            {n: expected[n] if n.split(":")[0] in here else slots[n] for n in slots},
        )
    assert int(optimizer.iterations) == len(steps)


ROWED = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


@st.composite
def slices(draw, shapes=ROWED):
    """IndexedSlices of any rows in any order, and the same gradient dense.

    The values are eighths, whose sums are exact in any order.
    """
    shape = draw(shapes)
    rows = draw(st.lists(st.integers(0, shape[0] - 1), max_size=6))
    eighths = np.random.default_rng(draw(SEEDS)).integers(-32, 33, (len(rows), *shape[1:]))
    rows = np.array(rows, draw(st.sampled_from(["int32", "int64"])))
    dense, some = np.zeros(shape, "float32"), (eighths / 8).astype("float32")
    np.add.at(dense, rows, some)
    return tf.IndexedSlices(some, rows, draw(st.sampled_from([None, shape]))), dense


@every
@examples(6)
@given(pair=slices())
@example(pair=(tf.IndexedSlices(np.zeros((0, 2), "float32"), np.zeros(0, "int32")), np.zeros((3, 2), "float32")))  # fmt: skip  # noqa: E501
def test_any_sparse_gradient_is_the_dense_one_bit_for_bit(case, pair):
    results = []
    for g in pair:
        optimizer, trainable = case.make(weight_decay=0.1), variables([pair[1].shape])
        for _ in range(2):
            optimizer.apply([g], trainable)
        results.append((values(trainable), state_of(optimizer)))
    equal(results[0][0], results[1][0])
    same_state(results[0][1], results[1][1])


@examples(4)
@given(
    case=st.sampled_from(TAKING_ALL),
    pairs=st.lists(slices(st.just((4, 3))), min_size=2, max_size=3),
)
def test_a_graph_takes_any_number_of_rows(case, pairs):
    (sparse, trained), (dense, expected) = ((case.make(), variables([(4, 3)])) for _ in range(2))

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64)])
    def step(some, rows):
        sparse.apply([tf.IndexedSlices(some, rows, (4, 3))], trained)

    with traced():
        for g, _ in pairs:
            step(g.values, tf.cast(g.indices, tf.int64))
    for _, g in pairs:
        dense.apply([g], expected)
    for a, b in zip(trained, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


UNSHRUNK = dict(phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)


@examples(8)
@given(case=st.sampled_from(TAKING_ALL), problem=problems(), exponent=st.integers(-20, 20))
def test_a_loss_scale_is_taken_back_bit_for_bit(case, problem, exponent):
    (shapes, grads), optimizer = problem, case.make(loss_scale_factor=2.0**exponent)
    scale = optimizer.scale_loss(tf.constant(1.0)).numpy()
    ours = run(optimizer, variables(shapes), [[g * scale for g in gs] for gs in grads])
    equal(ours, run(case.make(), variables(shapes), grads))


# Clipping.


@st.composite
def clips(draw):
    """A kind of clipping, a limit, and gradients of about the limit's size."""
    _, (grads,) = draw(problems(ANY_SHAPE, steps=1))
    assume(any(np.size(g) for g in grads))
    kind, exponent = draw(st.sampled_from(["clipvalue", "clipnorm", "global_clipnorm"])), 0
    exponent = draw(st.integers(-25, 25))
    limit = float(np.float32(draw(floats(0.1, 5)) * 10.0**exponent))
    return kind, limit, [np.float32(g * 10.0**exponent) for g in grads]


@examples(25)
@given(clip=clips(), zero=st.booleans())
def test_clipping_bounds_what_is_too_long_and_leaves_the_rest(clip, zero):
    kind, limit, grads = clip
    grads = [g * np.float32(not zero) for g in grads]
    trainable = [keras.Variable(np.zeros(np.shape(g), "float32"), name="v") for g in grads]
    left = [-p for p in run(td.SGD(1.0, **{kind: limit}), trainable, [grads])]
    length = np.sqrt([np.sum(np.square(g, dtype="float64")) for g in grads])
    if kind == "clipvalue":
        equal(left, [np.clip(g, -np.float32(limit), np.float32(limit)) for g in grads])
        return
    lengths = length if kind == "clipnorm" else [np.sqrt(np.sum(length**2))] * len(grads)
    for a, g, n in zip(left, grads, lengths, strict=True):
        scale = min(1.0, limit / n) if n else 1.0
        np.testing.assert_allclose(a, g * scale, rtol=1e-5)
        if n < limit * (1 - 1e-6):
            np.testing.assert_array_equal(a, g)


# Schedules.


@pytest.mark.parametrize("name", [*SIMPLE, "composed"])
@examples(15)
@given(data=st.data(), steps=st.lists(LENGTHS | st.integers(0, 2**31), min_size=1, max_size=5))
def test_any_schedule_stays_below_its_peak_and_survives_saving(name, data, steps):
    schedule = data.draw(SIMPLE.get(name, SCHEDULES))
    rates = schedule(tf.constant(steps, tf.int64)).numpy()
    assert np.all((rates >= 0) & (rates <= np.float32(schedule.peak) * np.float32(1 + 1e-6)))
    equal(rates, [schedule(step).numpy() for step in steps])
    config = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    again = keras.optimizers.schedules.deserialize(config)
    assert again.get_config() == schedule.get_config()
    equal(rates, again(tf.constant(steps, tf.int64)).numpy())


@examples(8)
@given(
    case=st.sampled_from(TAKING_ALL), problem=problems(), rate=SCHEDULES, λ=SCHEDULES,
    coupling=st.sampled_from(COUPLINGS), begin=st.integers(0, 20),
)  # fmt: skip
def test_any_schedules_equal_their_numbers_assigned_by_hand(
    case, problem, rate, λ, coupling, begin
):
    (shapes, grads), shared = problem, dict(decay_coupling=coupling)
    scheduled = case.make(learning_rate=rate, weight_decay=λ, **shared)
    by_hand = case.make(base_learning_rate=rate.peak, **shared)
    trainable, others = variables(shapes), variables(shapes)
    for optimizer, those in ((scheduled, trainable), (by_hand, others)):
        optimizer.build(those)
        optimizer.iterations.assign(begin)
    for step, gs in enumerate(grads, begin):
        by_hand.learning_rate, by_hand.weight_decay = float(rate(step)), float(λ(step))
        scheduled.apply(gs, trainable)
        by_hand.apply(gs, others)
    equal(values(trainable), values(others))
    same_state(state_of(scheduled), state_of(by_hand))


@examples(25)
@given(
    rate=SCHEDULES, λ=SCHEDULES, base=st.none() | RATES,
    coupling=st.sampled_from(COUPLINGS), step=st.integers(0, 40),
)  # fmt: skip
def test_every_coupling_is_its_formula_at_any_step(rate, λ, base, coupling, step):
    optimizer = td.SGDW(rate, λ, decay_coupling=coupling, base_learning_rate=base)
    lr, lam = float(rate(step)), float(λ(step))
    κ = references.decay(1.0, lr, lam, rate.peak if base is None else base, coupling)
    np.testing.assert_allclose(optimizer.hyperparameters_at(step)["decay"], κ, rtol=1e-6)
    trainable, zero = variables([(3,)]), [np.zeros(3, "float32")]
    start = trainable[0].numpy()
    optimizer.build(trainable)
    optimizer.iterations.assign(step)
    optimizer.apply(zero, trainable)
    np.testing.assert_allclose(trainable[0], start - κ * start, rtol=1e-5, atol=1e-6)


# Masks.


@keras.saving.register_keras_serializable("tests")
def within_encoder(variable):
    return variable.path.startswith("encoder/")


SCOPES = st.sampled_from(["", "encoder/", "decoder/block_1/", "decoder/block_12/"])
LEAVES = st.sampled_from(["kernel", "bias", "gamma", "embeddings"])
PATHS = st.tuples(SCOPES, LEAVES).map("".join)
REGEXES = st.sampled_from(
    ["kernel$", "^encoder/", "bias|gamma", "block_1/", r"block_\d+/", "(?i)KERNEL", ".", "norm"]
)


def found(regexes):
    return lambda path, rank: any(re.search(r, path) for r in regexes)


def mask_leaves():
    """Masks, each with what it should say of path and rank, and its patterns."""
    several = st.lists(REGEXES, min_size=1, max_size=2)
    return st.one_of(
        st.just((td.masks.matrices, lambda path, rank: rank >= 2, [])),
        st.just((td.masks.everything, lambda path, rank: True, [])),
        several.map(lambda rs: (td.masks.only(*rs), found(rs), rs)),
        several.map(lambda rs: (td.masks.exclude(*rs), lambda p, n: not found(rs)(p, n), rs)),
    )


def combined(each):
    def both(left, right):
        return left[0] & right[0], lambda p, n: left[1](p, n) and right[1](p, n), left[2] + right[2]

    def either(left, right):
        return left[0] | right[0], lambda p, n: left[1](p, n) or right[1](p, n), left[2] + right[2]

    def neither(mask):
        return ~mask[0], lambda p, n: not mask[1](p, n), mask[2]

    function = st.just((within_encoder, lambda p, n: p.startswith("encoder/"), []))
    pairs = st.builds(both, function, each) | st.builds(either, function, each)
    return pairs | st.builds(both, each, each) | st.builds(either, each, each) | each.map(neither)


MASKS = st.recursive(mask_leaves(), combined, max_leaves=4)


def at(path, shape):
    *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(np.ones(shape, "float32"), name=name)


@examples(40)
@given(
    mask=MASKS,
    places=st.lists(st.tuples(PATHS, FULL_SHAPE), min_size=1, max_size=4, unique_by=lambda x: x[0]),
)
def test_any_mask_decides_reports_and_survives_saving(mask, places):
    mask, says, patterns = mask
    trainable = [at(*place) for place in places]
    original = td.SGDW(0.5, 0.5, momentum=0.0, decay_mask=mask)
    config = json.loads(json.dumps(keras.optimizers.serialize(original)))
    optimizer = keras.optimizers.deserialize(config)
    assert optimizer.decay_mask == mask
    idle = [r for r in patterns if not any(re.search(r, path) for path, _ in places)]
    if idle:
        with pytest.raises(ValueError, match="match no variable") as error:
            optimizer.build(trainable)
        assert all(repr(r) in str(error.value) for r in idle)
        return
    expected = [says(path, len(shape)) for path, shape in places]
    run(optimizer, trainable, [[np.zeros(shape, "float32") for _, shape in places]])
    report = optimizer.decay_report()
    assert [row[:3] for row in report.rows] == [
        (*place, decays) for place, decays in zip(places, expected, strict=True)
    ]
    assert all(row.reason and f"{row.path} " in str(report) for row in report.rows)
    assert re.search(rf"^{sum(expected)} variables?, .* decay$", str(report), re.MULTILINE)
    for v, decays in zip(trainable, expected, strict=True):
        np.testing.assert_array_equal(v, np.full(v.shape, 0.75 if decays else 1.0))


# Order, interruptions and saved state.


@examples(8)
@given(case=st.sampled_from(TAKING_ALL), data=st.data(), problem=problems())
def test_the_order_of_variables_does_not_matter(case, data, problem):
    shapes, grads = problem
    expected = run(case.make(weight_decay=0.1, clipnorm=1.0), variables(shapes), grads)
    trainable, orders = variables(shapes), st.permutations(range(len(shapes)))
    optimizer = case.make(weight_decay=0.1, clipnorm=1.0)
    optimizer.build([trainable[i] for i in data.draw(orders)])
    for gs in grads:
        order = data.draw(orders)
        optimizer.apply([gs[i] for i in order], [trainable[i] for i in order])
    rounding = 1e-5 if case.together else 0.0  # sums of the same in another order
    for a, b in zip(values(trainable), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding)


SHARED = st.fixed_dictionaries(
    dict(
        weight_decay=floats(0, 0.5) | SCHEDULES,
        low_precision=st.sampled_from(["master", "stochastic"]),
    ),
    optional=dict(
        learning_rate=SCHEDULES,
        gradient_accumulation_steps=st.integers(1, 3),
        clipnorm=floats(0.1, 2),
        loss_scale_factor=floats(0.5, 64),
        skip_nonfinite=st.just(True),
        use_ema=st.just(True),
        ema_momentum=BETAS,
    ),
)


def resumed(first, before, order):
    """Another optimizer with the first's configuration and state, on variables in this order."""
    config = json.loads(json.dumps(keras.optimizers.serialize(first)))
    second = keras.optimizers.deserialize(config)
    trainable = [keras.Variable(v.numpy(), dtype=v.dtype, name=v.name) for v in before]
    second.build([trainable[i] for i in order])
    second.set_state(first.get_state())
    second.scale_loss(tf.constant(1.0))
    return second, trainable


def check_resumed(case, shared, problem, data, graph=False):
    shapes, steps = problem
    at_step = data.draw(st.integers(0, len(steps)))
    dtypes = data.draw(st.lists(st.sampled_from(["float32", "bfloat16", "float16"]),
                                min_size=len(shapes), max_size=len(shapes)))  # fmt: skip
    order = data.draw(st.permutations(range(len(shapes))))
    trainable = [
        keras.Variable(v.numpy(), dtype=dtype, name=v.name)
        for v, dtype in zip(variables(shapes), dtypes, strict=True)
    ]
    optimizer = case.make(jit_compile=False, **shared)
    optimizer.build(trainable)
    optimizer.scale_loss(tf.constant(1.0))  # the gradients are those of a loss that was scaled
    wrap = tf.function if graph else lambda f: f
    step = wrap(lambda gs: apply(optimizer, trainable, gs))
    for i, gs in enumerate(steps):
        if i == at_step:
            second, others = resumed(optimizer, trainable, order)
            step_on = wrap(lambda gs: apply(second, others, gs))  # noqa: B023
        step(gs)
        if i >= at_step:
            step_on(gs)
    if at_step < len(steps):
        equal(values(trainable), values(others))
        state = second.get_state()
        same_state(optimizer.get_state(), {name: state[name] for name in optimizer.get_state()})


@every
@examples(4)
@given(data=st.data(), shared=SHARED, problem=holed(least=2))
def test_a_sequence_saved_and_loaded_anywhere_goes_on_bit_for_bit(case, shared, problem, data):
    check_resumed(case, shared, problem, data)


@examples(2)
@given(data=st.data(), case=st.sampled_from(TAKING_ALL), shared=SHARED, problem=problems(least=2))
def test_so_does_a_traced_one(case, shared, problem, data):
    with traced():
        check_resumed(case, shared, problem, data, graph=True)


@examples(20)
@given(data=st.data(), case=st.sampled_from(TAKING_ALL))
def test_a_state_with_any_faults_is_refused_whole_and_named_or_loaded_in_part(data, case):
    optimizer, ones = case.make(), case.make()
    for each in (optimizer, ones):
        each.build(variables())
    before, state = optimizer.get_state(), {}
    other = {n: np.ones_like(v) if ":" in n else (v / 2).astype(v.dtype) for n, v in before.items()}
    for name, value in other.items():
        fate = data.draw(st.sampled_from(["fits", "fits", "missing", "misshapen"]), label=name)
        if fate != "missing":
            state[name] = value if fate == "fits" else np.ones((*value.shape, 7), value.dtype)
    strangers = data.draw(st.lists(st.sampled_from(["x:m", "y/z:v", "beta_9"]), unique=True))
    state |= {name: np.ones(2, "float32") for name in strangers}
    assume(any(":" in name for name in state))
    missing = sorted(before.keys() - state.keys())
    misshapen = sorted(n for n in before.keys() & state.keys() if state[n].shape != before[n].shape)
    if missing or misshapen or strangers:
        with pytest.raises(ValueError, match="nothing was loaded") as error:
            optimizer.set_state(state)
        assert all(repr(n) in str(error.value) for n in [*missing, *misshapen, *strangers])
    same_state(optimizer.get_state(), before)
    report = optimizer.set_state(state, strict=False)
    assert (report.missing, report.unexpected) == (missing, sorted(strangers))
    assert sorted(report.misshapen) == misshapen
    unfit = [*missing, *misshapen]
    expected = {n: v if n in unfit else other[n] for n, v in before.items()}
    same_state(optimizer.get_state(), expected)


# Accumulation, skipped steps, averages, low precision.


def eighths(grads):
    """Gradients whose sums float32 holds exactly."""
    return [[None if g is None else np.float32(np.round(8 * g) / 8) for g in gs] for gs in grads]


@every
@examples(3)
@given(problem=holed(), k=st.integers(1, 3))
def test_any_accumulation_is_a_step_with_the_mean_gradients_bit_for_bit(case, problem, k):
    shapes, grads = problem
    grads, groups = eighths(grads), []
    optimizer, trainable = case.make(gradient_accumulation_steps=k), variables(shapes)
    plain, others = case.make(), variables(shapes)
    plain.build(others)
    for gs in grads:
        apply(optimizer, trainable, gs)
    for i in range(0, len(grads) - k + 1, k):
        columns = [[g for g in column if g is not None]
                   for column in zip(*grads[i : i + k], strict=True)]  # fmt: skip
        means = [np.float32(sum(c) / np.float32(k)) if c else None for c in columns]
        groups.append(means)
        apply(plain, others, means)
    equal(values(trainable), values(others))
    assert int(optimizer.iterations) == len(groups) == len(grads) // k
    assert int(optimizer.micro_steps) == len(grads) % k


@every
@examples(4)
@given(
    bad=st.lists(st.sampled_from([None, None, np.nan, np.inf, -np.inf]), min_size=1, max_size=4),
    k=st.integers(1, 2), where=st.integers(0, 8),
)  # fmt: skip
def test_a_step_that_is_not_finite_changes_nothing_and_every_step_is_counted(case, bad, k, where):
    shapes = [(2, 2), (5,)]
    grads = gradients(shapes, steps=len(bad))
    for gs, value in zip(grads, bad, strict=True):
        if value is not None:
            gs[where >= 4].flat[where % 4] = value
    optimizer, trainable = case.make(gradient_accumulation_steps=k, skip_nonfinite=True), None
    trainable, skipped = variables(shapes), 0
    optimizer.build(trainable)
    for i, gs in enumerate(grads):
        before, slots = values(trainable), state_of(optimizer)
        optimizer.apply(gs, trainable)
        if (i + 1) % k == 0 and any(value is not None for value in bad[i + 1 - k : i + 1]):
            skipped += 1
            equal(values(trainable), before)
            for name, value in state_of(optimizer).items():
                if ":gradient_" not in name:
                    np.testing.assert_array_equal(value, slots[name], err_msg=name)
    assert all(np.all(np.isfinite(v)) for v in values(trainable))
    assert int(optimizer.skipped_steps) == skipped
    assert int(optimizer.iterations) == len(bad) // k - skipped


@examples(12)
@given(problem=problems(steps=5), β=BETAS, case=st.sampled_from(TAKING_ALL))
def test_averages_are_the_bias_corrected_mean_of_the_values(problem, β, case):
    shapes, grads = problem
    optimizer, trainable = case.make(use_ema=True, ema_momentum=β), variables(shapes)
    optimizer.build(trainable)
    totals, weight = [np.zeros(shape) for shape in shapes], 0.0
    for gs in grads:
        optimizer.apply(gs, trainable)
        totals = [β * a + (1 - β) * p for a, p in zip(totals, values(trainable), strict=True)]
        weight = β * weight + 1 - β
    after = values(trainable)
    with optimizer.averaged():
        for v, total in zip(trainable, totals, strict=True):
            np.testing.assert_allclose(v, total / weight, rtol=1e-5, atol=1e-6)
    equal(values(trainable), after)


LOW = st.sampled_from(["bfloat16", "float16"])


@every
@examples(3)
@given(problem=problems(), dtype=LOW, low_gradients=st.booleans())
def test_the_master_of_any_variable_moves_as_float32_bit_for_bit(
    case, problem, dtype, low_gradients
):
    shapes, grads = problem
    start = [tf.cast(v.value, dtype) for v in variables(shapes)]
    low = [keras.Variable(p, dtype=dtype, name=f"v{i}") for i, p in enumerate(start)]
    wide = [
        keras.Variable(tf.cast(p, "float32"), dtype="float32", name=v.name)
        for p, v in zip(start, low, strict=True)
    ]
    narrow = [[tf.cast(g, dtype) if low_gradients else tf.constant(g) for g in gs] for gs in grads]
    optimizer = case.make(weight_decay=0.1)
    run(optimizer, low, narrow)
    expected = run(
        case.make(weight_decay=0.1), wide, [[tf.cast(g, "float32") for g in gs] for gs in narrow]
    )
    state = optimizer.get_state()
    equal([state[f"{v.name}:master"] for v in low], expected)
    equal(values(low), [tf.cast(e, dtype).numpy() for e in expected])


@examples(40)
@given(
    x=hnp.arrays("float32", (7,), elements=st.floats(-6e4, 6e4, width=32, allow_subnormal=False)),
    dtype=LOW, seed=st.tuples(SEEDS, SEEDS),
)  # fmt: skip
def test_stochastic_rounding_takes_one_of_the_two_neighbours(x, dtype, seed):
    rounded = tf.cast(round_stochastically(tf.constant(x), tf.as_dtype(dtype), seed), tf.float64)
    kind = tf.as_dtype(dtype).as_numpy_dtype
    nearest = x.astype(kind)
    exact = nearest.astype("float64") == x
    step = np.abs(np.spacing(nearest).astype("float64"))
    assert np.all(np.where(exact, rounded == x, np.abs(rounded - x) < step))
    equal(rounded, tf.cast(rounded, dtype).numpy().astype("float64"))


# Arguments.


KINDS = [
    (td.Scalar, floats(0, 10) | SCHEDULES),
    (td.Positive, floats(1e-3, 10)),
    (td.Beta, BETAS),
    (td.Steps, st.integers(1, 1000)),
    (bool, st.booleans()),
]
PARTICULAR = dict(
    learning_rate=RATES | SCHEDULES,
    decay_coupling=st.sampled_from([None, *COUPLINGS]),
    decay_mask=MASKS.map(lambda mask: mask[0]) | st.none() | st.lists(REGEXES, max_size=2),
    base_learning_rate=RATES,
    jit_compile=st.sampled_from(["auto", True, False]),
    low_precision=st.sampled_from(["master", "stochastic"]),
)


# Not numbers, or with a say in other arguments.
NOT_DRAWN = ("inner", "state_dtype", "sparse", "gradient_transforms", "loss_scale")
NOT_DRAWN += ("max_consecutive_skips",)


def declared(cls):
    """A class's own and shared arguments; of a wrapper, only its own. No words of a class's own."""
    kinds = [kind for kind, _ in KINDS]
    return {
        name: each
        for name, each in cls.declared.items()
        if name not in NOT_DRAWN and (name in td.Optimizer.declared or each.kind in kinds)
    }


def of_kind(strategies, argument):
    return next(strategy for kind, strategy in strategies if kind == argument.kind)


@st.composite
def arguments(draw, cls):
    strategies = {
        name: PARTICULAR[name] if name in PARTICULAR else of_kind(KINDS, argument)
        for name, argument in declared(cls).items()
    }
    given = draw(st.fixed_dictionaries({}, optional=strategies))
    clip = draw(st.sampled_from(["clipnorm", "clipvalue", "global_clipnorm"]))
    return {n: v for n, v in given.items() if "clip" not in n or n in (clip, "clip_threshold")}


def wrapped(cls):
    inner = MADE[cls].inner
    return {"inner": inner.make()} if inner else {}


@pytest.mark.parametrize("cls", MADE, ids=lambda cls: cls.__name__)
@examples(4)
@given(data=st.data())
def test_any_arguments_are_in_the_configuration_and_survive_it(cls, data):
    given = data.draw(arguments(cls))
    original = cls(**given, **wrapped(cls))
    config = keras.optimizers.serialize(original)
    again = keras.optimizers.deserialize(json.loads(json.dumps(config)))
    assert type(again) is cls
    assert json.dumps(again.get_config()) == json.dumps(original.get_config())
    for name, value in given.items():
        if isinstance(value, (bool, int, float)):
            assert original.get_config()[name] == value == float(getattr(again, name))
    assert again.decay_mask == original.decay_mask
    assert again.hyperparameters_at(3).keys() == original.hyperparameters_at(3).keys()
    np.testing.assert_array_equal(
        again.hyperparameters_at(3)["decay"], original.hyperparameters_at(3)["decay"]
    )


NO_NUMBER = st.one_of(
    st.text(max_size=5),
    st.binary(max_size=3),
    st.booleans(),
    st.complex_numbers(),
    st.lists(st.floats(0.1, 0.5), max_size=2),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=1),
    hnp.arrays("float32", hnp.array_shapes(max_dims=2, max_side=2), elements=floats(0.1, 0.5)),
)
OUTSIDE = st.floats(max_value=0, exclude_max=True) | st.just(float("nan"))
BAD = [
    (td.Scalar, OUTSIDE | st.just(float("inf"))),
    (td.Positive, OUTSIDE | st.just(0)),
    (td.Beta, OUTSIDE | st.floats(1)),
    (td.Steps, OUTSIDE | st.integers(max_value=0) | st.floats(0.1, 0.9).map(lambda x: x + 2)),
]


@pytest.mark.parametrize("cls", MADE, ids=lambda cls: cls.__name__)
@examples(8)
@given(data=st.data())
def test_what_is_no_such_number_is_refused_and_shown_also_when_assigned(cls, data):
    live = [name for name, argument in declared(cls).items() if argument.live]
    name = data.draw(st.sampled_from(live))
    bad = of_kind(BAD, cls.declared[name])
    value, error = data.draw(
        NO_NUMBER.map(lambda x: (x, TypeError)) | bad.map(lambda x: (x, ValueError))
    )
    words = rf"(?s)`{name}` must be a.*{re.escape(f'({name}={value!r})')}"
    with pytest.raises(error, match=words):
        cls(**{name: value}, **wrapped(cls))
    optimizer = cls(**wrapped(cls))
    before = optimizer.get_config()
    with pytest.raises(error, match=words):
        setattr(optimizer, name, value)
    assert optimizer.get_config() == before


@pytest.mark.parametrize(
    "arguments",
    [dict(learning_rate=1e39), dict(beta_2=1 - 1e-9), dict(clipnorm=1e-50)],
    ids=lambda arguments: next(iter(arguments)),
)
def test_numbers_are_checked_as_float32_holds_them(arguments):
    with pytest.raises(ValueError, match=" must be "):
        td.AdamW(**arguments)


@pytest.mark.parametrize("name", ["amsgrad", "epsilon_hat", "use_ema", "skip_nonfinite"])
@examples(10, **UNSHRUNK)
@given(value=st.none() | st.text() | st.integers(2) | st.floats() | st.lists(st.booleans()))
def test_what_is_no_boolean_is_refused_and_shown(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"`{name}` must be") as error:
        td.AdamW(**{name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.array, tf.constant])
def test_the_base_of_any_number_is_known(kind):
    optimizer = td.AdamW(kind(1), decay_coupling="schedule")
    assert float(optimizer.base_learning_rate) == 1.0


@pytest.mark.parametrize("value", [[1.0, 2.0], True], ids=str)
def test_a_variable_that_is_no_scalar_number_is_refused(value):
    with pytest.raises((TypeError, ValueError), match="scalar"):
        td.AdamW(tf.Variable(value))


@pytest.mark.parametrize(
    "name,value",
    [
        ("decay_coupling", ["schedule"]),
        ("low_precision", np.array([1.0, 2.0])),
        ("jit_compile", np.array([1.0, 2.0])),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_no_word_is_refused_and_shown(name, value):
    with pytest.raises((TypeError, ValueError), match=f"`{name}` must be"):
        td.AdamW(**{name: value})
