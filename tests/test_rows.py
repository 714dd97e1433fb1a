"""sparse="lazy": a step touches the rows of its gradient; what they missed is caught up."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CASES, mirrored, run, variables
from probes import scaled

import tf_decoupled as td
from tf_decoupled.engine import slices

ROWS, WIDTH = 20, 3

sgdw = functools.partial(td.SGDW, 0.1, 0.05)
adamw = functools.partial(td.AdamW, 0.1, 0.05, beta_1=0.0)
CAN = [case for case in CASES if case.lazy is not None] + [scaled]
clipped = functools.partial(scaled.make, weight_decay=0.05, global_clipnorm=0.5)
masked = functools.partial(scaled.make, weight_decay=0.05, decay_mask=["v"])


def sparse_gradients(steps=15, seed=0):
    """Six slices a step, some rows repeated, many rows never."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(6, WIDTH)).astype("float32"), rng.integers(0, ROWS - 3, 6))
        for _ in range(steps)
    ]


def table(dtype="float32"):
    values = np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype("float32")
    return keras.Variable(values, dtype=dtype, name="v")


def train(optimizer, grads, strategy=None, graph=True, dtype="float32"):
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        v = table(dtype)
        optimizer = optimizer()
        optimizer.build([v])

    def step(values, indices):
        optimizer.apply([tf.IndexedSlices(values, indices, tf.constant([ROWS, WIDTH]))], [v])

    def on_all(values, indices):
        strategy.run(step, (values / strategy.num_replicas_in_sync, indices))

    on_all = tf.function(on_all) if graph else on_all
    for values, indices in grads:
        on_all(tf.constant(values, dtype), tf.constant(indices, tf.int32))
    return v, optimizer


def ends_as_dense(make, graph, dtype="float32", tolerance=1e-5):
    grads = sparse_gradients()
    v, optimizer = train(lambda: make(sparse="lazy"), grads, graph=graph, dtype=dtype)
    expected, dense = train(make, grads, dtype=dtype)
    optimizer.catch_up_rows()
    assert v.dtype == dtype
    equal = functools.partial(np.testing.assert_allclose, rtol=tolerance)
    equal(v.numpy(), expected.numpy(), atol=tolerance / 5)
    for slot, value in dense.get_state().items():
        equal(optimizer.get_state()[slot], value, atol=tolerance / 10)


@pytest.mark.parametrize("case", CAN, ids=lambda case: case.name)
def test_lazy_rows_end_as_the_dense_gradient_leaves_them(case):
    ends_as_dense(functools.partial(case.make, weight_decay=0.05, **case.lazy), graph=True)


@pytest.mark.parametrize("make", [scaled.make, clipped, masked], ids=["plain", "clipped", "masked"])
def test_so_they_do_eagerly_clipped_and_without_decay(make):
    ends_as_dense(make, graph=False)


@pytest.mark.parametrize("case", CAN, ids=lambda case: case.name)
def test_rows_of_float64_are_caught_up_in_float64(case):
    make = functools.partial(case.make, weight_decay=0.05, jit_compile=False, **case.lazy)
    ends_as_dense(make, graph=False, dtype="float64", tolerance=1e-12)


def test_rows_of_adamw_decay_and_forget_while_absent_but_do_not_drift():
    v, optimizer = train(lambda: td.AdamW(0.1, 0.5, sparse="lazy"), sparse_gradients(1))
    after, m = v.numpy().astype("float64"), optimizer.get_state()["v:m"]
    row, other = sparse_gradients(1)[0][1][0], ROWS - 2
    absent = tf.IndexedSlices(tf.zeros((1, WIDTH)), [ROWS - 1], tf.constant([ROWS, WIDTH]))
    for _ in range(4):
        optimizer.apply([absent], [v])
    np.testing.assert_array_equal(v.numpy()[row], after[row].astype("float32"))
    optimizer.catch_up_rows()
    np.testing.assert_allclose(v.numpy()[row], after[row] * 0.95**4, rtol=1e-6)
    np.testing.assert_allclose(optimizer.get_state()["v:m"][row], m[row] * 0.9**4, rtol=1e-5)
    np.testing.assert_allclose(v.numpy()[other], table().numpy()[other] * 0.95**5, rtol=1e-6)
    again = v.numpy()
    optimizer.catch_up_rows()
    np.testing.assert_array_equal(v.numpy(), again)


def ragged_gradients(lengths, seed=0):
    """So many slices in each step, some rows repeated."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(n, WIDTH)).astype("float32"), rng.integers(0, ROWS, n)) for n in lengths
    ]


def train_ragged(make, grads, strategy=None, eager=False, **function):
    """As `train`, in one step traced for any number of slices."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        v, optimizer = table(), make()
        optimizer.build([v])

    def step(values, indices):
        optimizer.apply([tf.IndexedSlices(values, indices, tf.constant([ROWS, WIDTH]))], [v])

    spec = [tf.TensorSpec([None, WIDTH], tf.float32), tf.TensorSpec([None], tf.int32)]
    on_all = lambda *slices: strategy.run(step, slices)  # noqa: E731
    on_all = on_all if eager else tf.function(on_all, input_signature=spec, **function)
    for values, indices in grads:
        on_all(tf.constant(values) / strategy.num_replicas_in_sync, tf.constant(indices, tf.int32))
    return v, optimizer


LENGTHS = [5, 1, 0, 17, 16, 3, 40]


def test_a_thousand_lengths_become_twenty_sizes_at_most():
    @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int32)])
    def in_graph(values, indices):
        return slices.padded(tf.IndexedSlices(values, indices))

    sizes = set()
    for n in range(1000):
        g = tf.IndexedSlices(tf.ones((n, 2)), tf.range(n))
        padded = in_graph(g.values, g.indices) if n % 100 else slices.padded(g)
        sizes.add(len(padded.indices))
        assert len(padded.values) == len(padded.indices) >= n
        assert set(padded.indices.numpy()) == set(range(n)), "no row comes in that had no slice"
        assert tf.reduce_sum(padded.values) == 2 * n
        assert len(padded.indices) <= max(16, 1.5 * n)
    assert len(sizes) <= 20


@pytest.mark.parametrize("eager", [True, False])
def test_ragged_batches_are_traced_once_for_each_size(eager):
    traced, run = [], set()

    class Seeing(td.SGDW):
        def step(self, p, g, s, h):
            traced.append(g.shape)
            seen = tf.numpy_function(lambda g: run.add(len(g)) or g, [g], g.dtype)
            return super().step(p, tf.ensure_shape(seen, g.shape), s, h)

        catch_up = td.SGDW.catch_up

    make = lambda: Seeing(0.1, sparse="lazy", jit_compile=False)  # noqa: E731
    train_ragged(make, ragged_gradients(range(1, 70, 3)), eager=eager)
    assert run == {16, 24, 32, 48, 64, 96}
    assert len(traced) == (6 if eager else 1)


@pytest.mark.parametrize("rule", [td.SGD, sgdw, adamw], ids=["SGD", "SGDW", "AdamW"])
@pytest.mark.parametrize("how", [dict(eager=True), {}], ids=["eager", "graph"])
def test_padding_changes_nothing(rule, how, monkeypatch):
    make = lambda: rule(sparse="lazy", jit_compile=False)  # noqa: E731
    ours, optimizer = train_ragged(make, ragged_gradients(LENGTHS), **how)
    monkeypatch.setattr(slices, "padded", lambda g: g)
    expected, unpadded = train_ragged(make, ragged_gradients(LENGTHS), **how)
    # The last bit of TensorFlow's exp and log depends on where in an array a number stands.
    exact = dict(rtol=0, atol=0) if rule is td.SGD else dict(rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), **exact)
    state = optimizer.get_state()
    for slot, value in unpadded.get_state().items():
        np.testing.assert_allclose(state[slot], value, **exact)


@pytest.mark.xla
@pytest.mark.parametrize("function", [dict(jit_compile=True), {}], ids=["whole", "step"])
def test_compiled_ragged_steps_end_as_the_dense_ones(function):
    make, grads = functools.partial(sgdw, global_clipnorm=0.5), ragged_gradients([5, 0, 17])
    ours, optimizer = train_ragged(lambda: make(sparse="lazy"), grads, **function)
    optimizer.catch_up_rows()
    expected, _ = train_ragged(lambda: make(jit_compile=False), grads)
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-5, atol=2e-6)


def test_replicas_pad_the_rows_that_they_put_together():
    make, grads = sgdw, ragged_gradients([5, 17, 3])
    v, optimizer = train_ragged(lambda: make(sparse="lazy", jit_compile=False), grads, mirrored())
    expected, _ = train_ragged(lambda: make(jit_compile=False), grads)
    optimizer.catch_up_rows()
    for component in mirrored().experimental_local_results(v.value):
        np.testing.assert_allclose(component, expected.numpy(), rtol=1e-5, atol=2e-6)


def test_the_sums_of_rows_are_those_of_the_dense_gradient():
    for indices in ([3, 1, 3, 3, 0], [2], [], [5, 5], [0, 1, 2]):
        g = tf.IndexedSlices(tf.random.normal((len(indices), 2)), tf.constant(indices, tf.int32))
        summed, dense = slices.summed(g), slices.dense(g, 6)
        np.testing.assert_allclose(
            tf.gather(summed.sums, summed.places), tf.gather(dense, summed.rows), rtol=1e-6
        )
        np.testing.assert_allclose(tf.norm(summed.sums), tf.norm(dense), rtol=1e-6)


def test_a_length_known_to_the_trace_is_left_as_it_is():
    @tf.function
    def traced(values):
        assert slices.padded(g := tf.IndexedSlices(values, tf.range(5))) is g

    traced(tf.ones((5, 2)))


@pytest.mark.parametrize("make", [sgdw, adamw], ids=["SGDW", "AdamW"])
def test_replicas_put_their_rows_together(make):
    grads = sparse_gradients(8)
    v, optimizer = train(lambda: make(sparse="lazy"), grads, mirrored())
    expected, _ = train(make, grads)
    optimizer.catch_up_rows()
    for component in mirrored().experimental_local_results(v.value):
        np.testing.assert_allclose(component, expected.numpy(), rtol=1e-5, atol=2e-6)


def test_dense_gradients_and_vectors_go_on_as_ever():
    grads = [[np.ones(s, "float32") for s in [(3, 4), (5,)]] for _ in range(4)]
    ours = run(td.AdamW(0.1, sparse="lazy"), variables([(3, 4), (5,)]), grads, graph=True)
    expected = run(td.AdamW(0.1), variables([(3, 4), (5,)]), grads, graph=True)
    for a, e in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6)


def test_a_nan_in_one_row_touches_nothing():
    make = lambda: td.AdamW(0.1, sparse="lazy", skip_nonfinite=True)  # noqa: E731
    bad = (np.full((6, WIDTH), np.nan, "float32"), np.arange(6))
    grads = sparse_gradients(4)
    v, optimizer = train(make, [*grads[:2], bad, *grads[2:]])
    expected, _ = train(make, grads)
    np.testing.assert_array_equal(v.numpy(), expected.numpy())
    assert int(optimizer.skipped_steps) == 1


def test_lazy_training_resumes_bit_for_bit_and_starts_late_variables_late():
    grads = sparse_gradients(6)
    make = lambda: td.AdamW(0.1, 0.1, sparse="lazy")  # noqa: E731
    whole, _ = train(make, grads, graph=False)
    half, first = train(make, grads[:3], graph=False)
    second = make()
    second.build([half])
    second.set_state(first.get_state())
    late = keras.Variable(np.ones((2, 2), "float32"), name="late")
    second.add_variables([late])
    for values, indices in grads[3:]:
        slices = tf.IndexedSlices(
            tf.constant(values), tf.constant(indices, tf.int32), tf.constant([ROWS, WIDTH])
        )
        second.apply([slices], [half])
    np.testing.assert_array_equal(half.numpy(), whole.numpy())
    second.catch_up_rows()
    np.testing.assert_array_equal(late.numpy(), 1.0)  # it had no gradient yet


def test_a_frozen_table_stays_as_it_is():
    v, optimizer = train(lambda: td.SGDW(0.1, 0.5, sparse="lazy"), sparse_gradients(3))
    optimizer.catch_up_rows()
    before, other = v.numpy(), keras.Variable([[1.0]], name="other")
    optimizer.add_variables([other])
    for _ in range(3):
        optimizer.apply([tf.ones((1, 1))], [other])
    optimizer.iterations.assign(100)
    optimizer.finalize_variable_values([v, other])
    np.testing.assert_array_equal(v.numpy(), before)


def test_the_state_of_exact_training_goes_on_lazily():
    grads = sparse_gradients(6)
    v, exact = train(sgdw, grads[:3])
    lazy = sgdw(sparse="lazy")
    lazy.build([v])
    report = lazy.set_state(exact.get_state(), strict=False)
    assert report.missing == ["v:row_step", "v:table_step"]
    for values, indices in grads[3:]:
        slices = tf.IndexedSlices(values, tf.constant(indices, tf.int32), [ROWS, WIDTH])
        lazy.apply([slices], [v])
    lazy.catch_up_rows()
    expected, _ = train(sgdw, grads)
    np.testing.assert_allclose(v.numpy(), expected.numpy(), rtol=1e-5, atol=2e-6)


def test_a_variable_with_a_constraint_is_stepped_whole():
    norm = keras.constraints.MaxNorm(1.0)
    tables = [keras.Variable(np.full((4, 2), 2.0, "float32"), name=n) for n in "ab"]
    for v, sparse in zip(tables, ("exact", "lazy"), strict=True):
        v.constraint = norm
        slices = tf.IndexedSlices(tf.zeros((3, 2)), [0, 0, 1], tf.constant([4, 2]))
        td.SGD(0.1, sparse=sparse).apply([slices], [v])
    np.testing.assert_array_equal(tables[0].numpy(), tables[1].numpy())


def test_fit_of_an_embedding_ends_caught_up(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 8, (32, 2)), np.ones((32, 1), "float32")
    layers = [keras.layers.Embedding(50, 4), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(td.AdamW(0.01, 0.1, sparse="lazy"), "mse")
    model.fit(x, y, batch_size=8, verbose=0)
    state = model.optimizer.get_state()
    (steps,) = [v for name, v in state.items() if name.endswith("embeddings:row_step")]
    np.testing.assert_array_equal(steps, 4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert again.sparse == "lazy" and int(again.iterations) == 4


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: td.AdamW(sparse="eager"), "Received: sparse='eager'"),
        (lambda: td.LAMB(sparse="lazy"), "LAMB can not step single rows"),
        (lambda: td.AdamW(sparse="lazy", use_ema=True), "{'use_ema': True}"),
        (
            lambda: td.SGDW(sparse="lazy", gradient_accumulation_steps=2),
            "{'gradient_accumulation_steps': 2}",
        ),
        (lambda: td.SGDW(sparse="lazy", low_precision="stochastic"), "'stochastic'"),
        (lambda: td.Adam(sparse="lazy", l2=0.1), "{'l2': 0.1}"),
        (lambda: td.Lookahead(td.AdamW(sparse="lazy")), "A wrapper steps whole variables"),
    ],
)
def test_what_does_not_go_together_says_so(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("graph", [False, True])
def test_of_a_partition_the_members_that_can_step_rows_do(graph):
    """The table lazily; the square by Muon, which can't; what SGD's `l2` may change, exactly."""

    def parts(**options):
        names = {"v": td.RowwiseAdagrad(0.1, 0.05), "square": td.Muon(0.1)}
        members = [(td.masks.only(f"^{name}$"), member) for name, member in names.items()]
        options |= dict(jit_compile=False, global_clipnorm=1.0)
        return td.Partition([*members, (None, td.SGD(0.1, l2=0.1))], **options)

    ends = []
    for optimizer in (parts(sparse="lazy"), parts()):
        square = keras.Variable(np.eye(WIDTH, dtype="float32"), name="square")
        variables = [table(), square, keras.Variable(table().value, name="other")]

        def apply(optimizer, variables, values, indices):
            slices = tf.IndexedSlices(values, indices, tf.constant([ROWS, WIDTH]))
            optimizer.apply([slices, values[:WIDTH], slices], variables)

        step = functools.partial(apply, optimizer, variables)
        step = tf.function(step) if graph else step
        for values, indices in sparse_gradients():
            step(tf.constant(values), tf.constant(indices, tf.int32))
        optimizer.catch_up_rows()
        ends.append([v.numpy() for v in variables])
        lazily = [cell.path for cell in optimizer.cells if cell.by_rows]
        assert lazily == (["v"] if optimizer.sparse == "lazy" else [])
    for lazy, exact in zip(*ends, strict=True):
        np.testing.assert_allclose(lazy, exact, rtol=1e-5, atol=1e-6)


def test_a_partition_none_of_whose_members_can_step_rows_says_so():
    with pytest.raises(ValueError, match=r"LAMB can not step single rows.*Received: sparse="):
        td.Partition([(None, td.LAMB())], sparse="lazy")
    with pytest.raises(ValueError, match=r"Adam has `l2`.*Received: sparse="):
        td.Partition([(None, td.Adam())], sparse="lazy")


class OwnUpdate(td.AdamW):
    def update(self, p, g, s, h):
        return tf.sign(g), dict(m=s.m, v=s.v)


class OwnSlots(td.SGDW):
    def init(self, p):
        return super().init(p) | dict(more=super().init(p)["m"])

    def step(self, p, g, s, h):
        p, slots = super().step(p, g, s, h)
        return p, slots | dict(more=s.more)


class OwnBoth(OwnUpdate):
    def catch_up(self, p, s, h, k):
        return p, dict(m=s.m, v=s.v)


class OwnDefault(td.AdamW):
    """Another number, and the same mathematics."""

    weight_decay: td.Scalar = 0.0


@pytest.mark.parametrize(
    "optimizer,words",
    [
        (OwnUpdate, "OwnUpdate defines `update`, and `catch_up` of AdamW .* with another `update`"),
        (OwnSlots, "OwnSlots defines `init`, and `catch_up` of SGDW .* with another `init`"),
        (type("Again", (OwnBoth, td.AdamW), {"init": td.AdamW.init}), "`catch_up` of OwnBoth"),
    ],
)
def test_a_class_with_a_rule_of_its_own_needs_a_catch_up_of_its_own(optimizer, words):
    optimizer()
    with pytest.raises(ValueError, match=f"{words}.*Define `catch_up` in .*Received: sparse="):
        optimizer(sparse="lazy")
    for whole in (OwnBoth, OwnDefault, td.Adam, td.SGD):
        whole(sparse="lazy")


def test_the_error_names_the_optimizers_that_can_step_rows():
    with pytest.raises(ValueError, match="can not step single rows") as error:
        td.LAMB(sparse="lazy")
    named = str(error.value).partition("or take ")[2].partition(". Received")[0].split(", ")
    assert set(named) == {case.optimizer.__name__ for case in CASES if case.lazy is not None}


@pytest.mark.parametrize("sparse", ["exact", "lazy"])
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_is_not_there_raises_before_anything_is_changed(sparse, graph, row):
    v, optimizer = train(lambda: sgdw(sparse=sparse, jit_compile=False), [])
    apply = lambda g: optimizer.apply([g], [v])  # noqa: E731
    apply = tf.function(apply) if graph else apply
    slices = tf.IndexedSlices(
        tf.ones((2, WIDTH)), tf.constant([row, 1]), tf.constant([ROWS, WIDTH])
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        apply(slices)
    words = f"The gradient of `v` is of rows outside of its {ROWS}, counted from 0. Look at"
    assert words in str(error.value) and str(row) in str(error.value)
    np.testing.assert_array_equal(v.numpy(), table().numpy())
    assert graph or int(optimizer.iterations) == 0


def test_a_step_compiled_as_a_whole_drops_rows_that_are_not_there():
    grads = ragged_gradients([5])
    make = sgdw
    expected, _ = train_ragged(make, grads, jit_compile=True)
    (values, ids), more = grads[0], np.ones((1, WIDTH), "float32")
    for row in (-1, ROWS):
        outside = [(np.concatenate([values, more]), np.append(ids, row))]
        v, _ = train_ragged(make, outside, jit_compile=True)
        np.testing.assert_array_equal(v.numpy(), expected.numpy())


def test_an_l2_given_later_is_refused_as_well():
    optimizer = td.Adam(sparse="lazy")
    optimizer.l2 = 0.0
    for later in (0.1, tf.constant(0.1), lambda: 0.1):
        with pytest.raises(ValueError, match=r"Leave them out.*'l2': "):
            optimizer.l2 = later
    assert float(optimizer.l2) == 0


def test_bfloat16_rows_keep_their_masters():
    v = table("bfloat16")
    optimizer = td.SGDW(1e-3, 0.0, momentum=0.0, sparse="lazy")
    optimizer.build([v])
    slices = tf.IndexedSlices(tf.ones((2, WIDTH)), [4, 4], tf.constant([ROWS, WIDTH]))
    before = tf.cast(v.value, tf.float32).numpy()
    for _ in range(10):
        optimizer.apply([slices], [v])
    master = optimizer.get_state()["v:master"][4]
    np.testing.assert_allclose(master, before[4] - 10 * 2e-3, rtol=1e-5)
