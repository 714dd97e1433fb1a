"""Training begun in optax goes on here with the same numbers; its files run nothing."""

import collections
import importlib.util
import pickle
import sys

import fixtures
import keras
import numpy as np
import pytest
import tensorflow as tf
from fixtures import PLAIN, assert_goes_on, built, steps, variables

import tf_decoupled as td
from tf_decoupled import importers

pytestmark = pytest.mark.usefixtures("untraced")

OURS = {
    "AdamW": lambda: td.AdamW(0.01, 0.1, global_clipnorm=1.0, **PLAIN),
    "SGD": lambda: td.SGD(0.01, momentum=0.9, nesterov=True, **PLAIN),
    "RMSprop": lambda: td.RMSprop(0.01, momentum=0.8, centered=True, epsilon=1e-6, **PLAIN),
    "Adagrad": lambda: td.Adagrad(0.1, **PLAIN),
    "Adadelta": lambda: td.AdadeltaW(1.0, 0.0, epsilon=1e-4, **PLAIN),
    "Adamax": lambda: td.AdaMaxW(0.01, 0.0, **PLAIN),
    "NAdamW": lambda: td.NAdamW(0.01, 0.1, momentum_decay=10_000.0, **PLAIN),
    "LAMB": lambda: td.LAMB(0.01, 0.1, **PLAIN),
    "Lion": lambda: td.Lion(td.schedules.Linear(0.01, 40, 0.001), 0.1, **PLAIN),
    "injected": lambda: td.Adam(0.5, **PLAIN),
    "multi": lambda: td.AdamW(0.01, 0.1, decay_mask=td.masks.matrices, **PLAIN),
}
UNCOUNTED = ("SGD", "RMSprop", "Adagrad", "Adadelta")


def source(name, kind="pkl"):
    if kind == "msgpack" and importlib.util.find_spec("msgpack") is None:
        pytest.skip("msgpack is not installed: pip install 'tf_decoupled[importers]'")
    return fixtures.source("optax.zip", name, f".{kind}")


def counted(name):
    return dict(iterations=steps.BEFORE) if name in UNCOUNTED else {}


@pytest.mark.parametrize("kind", ["pkl", "msgpack"])
@pytest.mark.parametrize("name", OURS)
def test_a_state_of_optax_goes_on_here(name, kind):
    path, trainable, end = source(name, kind)
    ours = built(OURS[name](), trainable)
    ours.set_state(importers.optax_state(path, ours, **counted(name)))
    assert_goes_on(ours, trainable, end)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_a_live_state_of_optax_goes_on_here(name):
    pytest.importorskip("optax", reason="trains with it")
    import optax_rules

    theirs = optax_rules.RULES[name]()
    state, begin = optax_rules.train(theirs, steps.gradients(steps.BEFORE, 1))
    _, end = optax_rules.train(theirs, steps.gradients(steps.AFTER, 2), state, begin)
    trainable = variables(begin)
    ours = built(OURS[name](), trainable)
    ours.set_state(importers.optax_state(state, ours, **counted(name)))
    assert_goes_on(ours, trainable, end)


def state_class(name, *fields):
    """A named tuple as optax has it."""
    return collections.namedtuple(name, fields)


Adam = state_class("ScaleByAdamState", "count", "mu", "nu")
Trace = state_class("TraceState", "trace")
Empty = state_class("EmptyState")
Schedule = state_class("ScaleByScheduleState", "count")


def of_shapes(*shapes):
    """Arrays that differ."""
    return [np.full(shape, i, "float32") for i, shape in enumerate(shapes)]


def test_flat_parameters_are_told_by_order_and_others_by_shapes_that_differ():
    trainable = variables()
    ours = built(td.Adam(), trainable)
    values = of_shapes((3, 4), (4,), (4, 2), (2,))
    by_order = importers.optax_state(Adam(6, values, tuple(values)), ours)
    tree = dict(zip("dcab", values, strict=True))
    by_shape = importers.optax_state(Adam(6, tree, tree), ours)
    for state in (by_order, by_shape):
        assert [np.max(state[f"{v.path}:m"]) for v in trainable] == [0, 1, 2, 3]


def test_flat_parameters_whose_numbers_are_sorted_as_text_are_in_their_own_order():
    trainable = [keras.Variable(np.zeros((2, 2)), name=f"v{i}") for i in range(12)]
    ours = built(td.Adam(), trainable)
    tree = {i: np.full((2, 2), float(i), "float32") for i in sorted(map(str, range(12)))}
    state = importers.optax_state(Adam(6, tree, tree), ours)
    assert [np.max(state[f"{v.path}:m"]) for v in trainable] == [*range(12)]


@pytest.mark.parametrize(
    "shapes,kind",
    [
        ([(4, 3), (4,), (2, 4), (2,)], list),  # of which two are transposed
        ([(3, 4), (4,), (2,), (4, 2)], tuple),  # in another order
        ([(3, 4), (4,), (4, 2)], list),
    ],
)
def test_transposes_and_orders_are_not_guessed(shapes, kind):
    ours = built(td.Adam(), variables())
    values = kind(of_shapes(*shapes))
    if kind is tuple:
        values = {"x": values}
    fits = sorted(shapes) == sorted(tuple(c.variable.shape) for c in ours.cells)
    if fits:  # each shape once
        assert importers.optax_state(Adam(6, values, values), ours)
        return
    with pytest.raises(ValueError, match=r"Pass `names=`.*layout=.*Received: 0 \("):
        importers.optax_state(Adam(6, values, values), ours)


def test_two_parameters_of_one_shape_are_not_guessed_and_may_be_told():
    trainable = [keras.Variable(np.ones((3, 3), "float32"), name=name) for name in "ab"]
    ours = built(td.Lion(), trainable)
    lion = state_class("ScaleByLionState", "count", "mu")
    tree = {"x": np.full((3, 3), 2.0), "y": np.arange(9.0).reshape(3, 3)}
    with pytest.raises(ValueError, match=r"Received: x \(3, 3\), y \(3, 3\) for a \(3, 3\)"):
        importers.optax_state(lion(1, tree), ours)
    state = importers.optax_state(
        lion(1, tree), ours, {"a": "y", "b": "x"}, layout=lambda v, a: a.T
    )
    np.testing.assert_array_equal(state["a:m"], np.arange(9.0).reshape(3, 3).T)
    with pytest.raises(ValueError, match=r"of its own in optax. Received: {'a': None"):
        importers.optax_state(lion(1, tree), ours, {})


def test_equal_paths_with_other_shapes_are_listed():
    ours = built(td.Adam(), variables())
    tree = {"hidden": {"kernel": np.ones((4, 3)), "bias": np.ones(4)}}
    tree["head"] = {"kernel": np.ones((4, 2)), "bias": np.ones(2)}
    state = importers.optax_state(Adam(6, tree, tree), ours)
    with pytest.raises(ValueError, match=r"hidden/kernel:m"):
        ours.set_state(state)


@pytest.mark.parametrize(
    "chain,factor",
    [
        (lambda trace: (trace, Empty()), 0.5),
        (lambda trace: (Empty(), (trace, Schedule(3))), 0.5),
        (lambda trace: (Empty(), trace, Schedule(3)), 0.5),
        (lambda trace: (Empty(), trace), -1.0),
        (lambda trace: ((Empty(), Schedule(3)), trace, Empty()), None),
        (lambda trace: (Empty(), trace, Empty()), None),
        (lambda trace: trace, None),
    ],
)
def test_momentum_holds_the_rate_where_the_rate_stands_before_it(chain, factor):
    trainable = variables()
    ours = built(td.SGD(0.5, momentum=0.9), trainable)
    tree = of_shapes(*steps.SHAPES.values())
    state = chain(Trace(tree))
    if factor is None:
        with pytest.raises(ValueError, match="Pass `trace_holds_rate=`"):
            importers.optax_state(state, ours)
        factor, told = -1.0, dict(trace_holds_rate=True)
    else:
        told = {}
    found = importers.optax_state(state, ours, **told)
    np.testing.assert_allclose(found["sequential/head/bias:m"], factor * tree[-1])


def test_a_trace_under_a_schedule_needs_the_next_rate():
    trainable = variables()
    ours = built(td.SGD(td.schedules.Linear(0.1, 40, 0.01), momentum=0.9), trainable)
    state = (Trace(of_shapes(*steps.SHAPES.values())), Schedule(3))
    with pytest.raises(ValueError, match="pass the rate of the next step"):
        importers.optax_state(state, ours)
    found = importers.optax_state(state, ours, learning_rate=0.25)
    np.testing.assert_allclose(found["sequential/head/bias:m"], 0.75)


TREE = {"a": np.ones(2)}


@pytest.mark.parametrize(
    "state,words",
    [
        (
            state_class("ScaleByAmsgradState", "count", "nu_max")(1, TREE),
            "no counterpart here.*Ams",
        ),
        (state_class("ScaleByBeliefState", "count", "mu", "nu")(1, TREE, TREE), "ScaleByBelief"),
        ({"count": 1, "strange": TREE}, r"a mapping of \['count', 'strange'\] at state"),
        ((Adam(1, TREE, TREE), Adam(1, TREE, TREE)), r"'mu' again at state\[1\] for \['a'\]"),
        ((Adam(1, TREE, TREE), Schedule(2)), r"same number of steps.*state\[1\].count': 2"),
        (Adam(1.5, TREE, TREE), "A count must be one integer"),
        (Adam(1, {"a": object()}, TREE), "must be arrays in mappings.*object at 'a'"),
        (None, "no slots to import|no counterpart"),
    ],
)
def test_states_that_are_unknown_or_disagree_raise(state, words):
    ours = built(td.Adam(), [keras.Variable(np.ones(2, "float32"), name="a")])
    ours.iterations.assign(3)
    with pytest.raises(ValueError, match=words):
        importers.optax_state(state, ours)


def test_nadam_needs_a_momentum_without_a_start():
    path, trainable, _ = source("NAdamW")
    ours = built(td.NAdamW(), trainable)
    with pytest.raises(ValueError, match=r"momentum_decay=10_000.0"):
        importers.optax_state(path, ours)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def recursive():
    held = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    "content,words",
    [
        (Evil(print, "no"), "asks for builtins.print"),
        (Evil(importlib.util.find_spec, "os"), "asks for importlib"),
        (Evil(np.fromfile, "secret"), "asks for numpy"),
        (np.array([Evil(print, "no")], object), "asks for builtins.print"),
        (np.array(["a"], object), "isn't of numbers"),
        (np.dtype("f4"), "stands by itself"),
        (np.ndarray, "which is no number"),
        ({1, 2}, "asks for|no number"),
        (recursive(), "too deep, or holds itself"),
    ],
)
def test_a_pickle_runs_nothing(content, words, tmp_path, capsys):
    (tmp_path / "state.pkl").write_bytes(pickle.dumps(content, 4))
    ours = built(td.Adam(), variables())
    with pytest.raises(ValueError, match=words):
        importers.optax_state(tmp_path / "state.pkl", ours)
    assert capsys.readouterr().out == ""


def test_files_that_are_none_raise(tmp_path, monkeypatch):
    ours = built(td.Adam(), variables())
    for name, content, words in (
        ("state.pkl", b"", "can't be read"),
        ("state.pkl", pickle.dumps(TREE, 4)[:-9], "can't be read"),
        ("state.npz", b"", "are pickles, `.pkl`"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            importers.optax_state(tmp_path / name, ours)
    (tmp_path / "state.msgpack").write_bytes(b"\xc1")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "msgpack", None)
        with pytest.raises(ImportError, match=r"pip install 'tf_decoupled"):
            importers.optax_state(tmp_path / "state.msgpack", ours)
    pytest.importorskip("msgpack", reason="reads a file")
    with pytest.raises(ValueError, match="no state that flax has written"):
        importers.optax_state(tmp_path / "state.msgpack", ours)


def test_numpys_arrays_and_a_state_beside_others_are_read(tmp_path):
    path, trainable, _ = source("multi")
    ours = built(OURS["multi"](), trainable)
    of_jax = importers.optax_state(path, ours)
    of_numpy = importers.optax_state(path.with_name("numpy.pkl"), ours)
    assert all(np.array_equal(of_jax[name], value) for name, value in of_numpy.items())
    tree = dict(zip(steps.SHAPES, of_shapes(*steps.SHAPES.values()), strict=True))
    beside = dict(opt_state=(dict(count=6, mu=tree, nu=tree),), step=6)
    (tmp_path / "train.pickle").write_bytes(pickle.dumps(beside))
    assert importers.optax_state(tmp_path / "train.pickle", ours)["iterations"] == 6


def packed(array):
    """As flax packs an array."""
    import msgpack

    return msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)


def test_an_array_that_flax_has_cut_is_joined(tmp_path):
    msgpack = pytest.importorskip("msgpack", reason="writes a file")
    halves = [msgpack.ExtType(1, packed(np.arange(6.0)[i : i + 3])) for i in (0, 3)]
    cut = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}}
    cut["chunks"] = {str(i): half for i, half in enumerate(halves)}
    step = msgpack.ExtType(3, packed(np.array(6, "int32")))
    state = {"0": {"count": step, "mu": {"v": cut}}, "1": {}}
    (tmp_path / "state.msgpack").write_bytes(msgpack.packb(state))
    ours = built(td.Lion(), [keras.Variable(np.ones((2, 3), "float32"), name="v")])
    found = importers.optax_state(tmp_path / "state.msgpack", ours)
    np.testing.assert_array_equal(found["v:m"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float16", ">f4", tf.bfloat16.as_numpy_dtype])
def test_arrays_of_all_kinds_and_orders_are_read_from_pickles(dtype, protocol, tmp_path):
    array = np.arange(6).reshape(2, 3)
    mu = collections.OrderedDict(a=array.astype(dtype), b=array.astype(dtype).T)
    whole = {"opt_state": [{"count": np.int32(6), "mu": mu}, None]}
    (tmp_path / "state.pkl").write_bytes(pickle.dumps(whole, protocol))
    trainable = [keras.Variable(np.ones(s, "float32"), name=n) for n, s in mu_shapes(mu)]
    found = importers.optax_state(tmp_path / "state.pkl", built(td.Lion(), trainable))
    assert found["iterations"] == 6
    np.testing.assert_array_equal(found["a:m"], array)
    np.testing.assert_array_equal(found["b:m"], array.T)


def mu_shapes(tree):
    return [(name, array.shape) for name, array in tree.items()]
