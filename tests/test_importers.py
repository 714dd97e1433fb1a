"""Training begun in Keras or PyTorch goes on here with the same numbers."""

import functools

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, variables
from keras import layers, optimizers
from references_torch import TORCH

import tf_decoupled as td
from tf_decoupled import importers

pytestmark = pytest.mark.usefixtures("untraced")

BEFORE, AFTER = 6, 5  # steps there, and here
PLAIN = dict(jit_compile=False)  # the numbers are the same, and nothing waits for a compiler
SHAPES = [(3, 3), (3,), (3, 3), (3,)]  # which say nothing about what is transposed
COSINE = optimizers.schedules.CosineDecay(0.05, BEFORE + AFTER)


def model():
    """Keras joins the names of layers with underscores, of which one has some of its own."""
    # As in another process: the numbers that Keras gives start anew.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    dense = [layers.Dense(3, name="hid_den"), layers.Dense(3)]
    return keras.Sequential([layers.Input((3,)), *dense])


def built(optimizer, trainable=None):
    optimizer.build(model().trainable_variables if trainable is None else trainable)
    return optimizer


def keras_rule(cls, **options):
    """The class with its options, to be called again and again."""
    rate = 0.01 if cls == "SGD" else 0.001  # Keras's 1 − βᵗ is right to four digits at first
    return functools.partial(getattr(optimizers, cls), rate, **options)


RULES = {
    "Adam": keras_rule("Adam", amsgrad=True, epsilon=1e-3, global_clipnorm=1.0),
    "AdamW": keras_rule("AdamW", weight_decay=0.5, beta_2=0.9),
    "SGD": keras_rule("SGD", weight_decay=0.5, clipvalue=0.5),
    "SGD-momentum": keras_rule("SGD", momentum=0.8, nesterov=True, clipnorm=1.0),
    "RMSprop": keras_rule("RMSprop", weight_decay=0.5, epsilon=1e-3),
    "RMSprop-centered": keras_rule("RMSprop", momentum=0.8, centered=True, epsilon=1e-3),
    "Adagrad": keras_rule("Adagrad", weight_decay=0.5, epsilon=1e-3),
    "Adadelta": functools.partial(optimizers.Adadelta, 1.0, epsilon=1e-3),
    "Adamax": keras_rule("Adamax", weight_decay=0.5),
    "Nadam": keras_rule("Nadam", weight_decay=0.5, epsilon=1e-3),
    "Ftrl": keras_rule("Ftrl", l1_regularization_strength=1e-3, beta=0.1),
    "Lion": keras_rule("Lion", weight_decay=0.5),
    "Adafactor": keras_rule("Adafactor", beta_2_decay=-0.7),
    "Lamb": keras_rule("Lamb"),
}
NUMBERED = ("RMSprop-centered", "Nadam", "Adafactor")  # whose files need more than names


def trained(optimizer, steps=BEFORE):
    """A compiled model after some steps."""
    begun = model()
    begun.compile(optimizer, "mse")
    run(optimizer, begun.trainable_variables, gradients(SHAPES, steps=steps))
    return begun


def twin_of(begun):
    twin = keras.models.clone_model(begun)
    twin.set_weights(begun.get_weights())
    return twin


def assert_follows(begun, ours, twins):
    """From the same point both make the same steps."""
    grads = gradients(SHAPES, steps=AFTER, seed=2)
    start = [v.numpy() for v in begun.trainable_variables]
    expected = run(begun.optimizer, begun.trainable_variables, grads)
    for a, b in zip(run(ours, twins, grads), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    moved = [np.abs(b - c).max() for b, c in zip(expected, start, strict=True)]
    assert max(moved) > 1e-4 and min(moved) > 0


def stored(begun, kind, folder):
    """What `importers` take for this kind of source."""
    if kind == "live":
        return begun.optimizer
    if kind in ("begun.keras", "begun.weights.h5"):
        (begun.save if kind.endswith("keras") else begun.save_weights)(folder / kind)
        return folder / kind
    parts = {"model": begun, "optimizer": begun.optimizer, "root": begun.optimizer}
    return tf.train.Checkpoint(**{kind: parts[kind]}).save(folder / "begun")


@pytest.mark.parametrize(
    "kind,name",
    [
        *(("live", name) for name in RULES),
        *(("begun.keras", name) for name in ("Adam", "SGD-momentum")),
        *(("begun.weights.h5", name) for name in ("Adam", "SGD-momentum")),
        *(("model", "SGD"), ("optimizer", "AdamW"), ("root", "Adam")),
        *(("begun.weights.h5", name) for name in NUMBERED),
        *(("begun.keras", "Adafactor"), ("model", "Adafactor"), ("model", "Nadam")),
    ],
)
def test_training_goes_on_from_wherever_keras_left_it(kind, name, tmp_path):
    begun = trained(RULES[name]())
    rate = 0.001 if name == "Adafactor" else 0.002  # here Adafactor's is a schedule
    begun.optimizer.learning_rate = rate
    source, twins = stored(begun, kind, tmp_path), twin_of(begun).trainable_variables
    own = twins if kind.endswith("h5") else twins[::-1]  # all others are told by paths
    if kind in ("live", "begun.keras"):
        ours = importers.from_keras(source, own, **PLAIN)
    else:
        ours = importers.from_keras(RULES[name](), own, **PLAIN)
        ours.set_state(importers.keras_state(source, ours))
    assert int(ours.iterations) == BEFORE
    assert name == "Adafactor" or float(ours.learning_rate) == np.float32(rate)
    assert_follows(begun, ours, twins)


def test_bare_tensorflow_variables_are_found_by_name():
    trainable = [tf.Variable([1.0, 2.0], name="a"), tf.Variable([3.0], name="b")]
    theirs = optimizers.Adam(0.01)
    run(theirs, trainable, gradients([(2,), (1,)], steps=3))
    ours = importers.from_keras(theirs, trainable)
    np.testing.assert_array_equal(ours.get_state()["b:m"], theirs.variables[4])


def test_a_schedule_goes_on_where_it_stood_live_and_from_a_file(tmp_path):
    begun = trained(optimizers.SGD(COSINE, momentum=0.9))
    twins = twin_of(begun).trainable_variables
    ours = importers.from_keras(begun.optimizer, twins, **PLAIN)
    state = importers.keras_state(stored(begun, "begun.weights.h5", tmp_path), ours)
    assert not ours.set_state(state) and "learning_rate" not in state
    assert_follows(begun, ours, twins)


def test_what_keras_leaves_out_of_the_decay_stays_out(monkeypatch):
    """Keras tells it through its private `_use_weight_decay` only; without that, the user must."""
    trainable, theirs = model().trainable_variables, RULES["AdamW"]()
    theirs.exclude_from_weight_decay(var_list=[trainable[0]], var_names=["dense/bias"])
    ours = importers.from_keras(theirs, trainable)
    assert [cell.decays for cell in ours.cells] == [False, True, True, False]
    owner = next(cls for cls in type(theirs).__mro__ if "_use_weight_decay" in vars(cls))
    monkeypatch.delattr(owner, "_use_weight_decay")
    with pytest.raises(NotImplementedError, match=r"doesn't tell .* Pass `decay_mask=`"):
        importers.from_keras(theirs, trainable)
    ours = importers.from_keras(theirs, trainable, decay_mask=td.masks.matrices)
    assert [cell.decays for cell in ours.cells] == [True, False, True, False]


def test_arguments_of_the_caller_replace_those_of_keras():
    ours = importers.from_keras(trained(RULES["AdamW"]()), learning_rate=0.5, sparse="lazy")
    assert float(ours.learning_rate) == 0.5 and float(ours.weight_decay) == 0.5
    state = ours.get_state()
    rows, table = (state[f"sequential/dense/kernel:{s}_step"] for s in ("row", "table"))
    assert np.all(rows == table) and int(ours.iterations) == BEFORE  # each has had all updates


def test_a_keras_optimizer_without_state_lends_its_hyperparameters():
    shared = dict(use_ema=True, ema_momentum=0.875, ema_overwrite_frequency=3)
    shared |= dict(loss_scale_factor=8.0, gradient_accumulation_steps=2)
    theirs = optimizers.AdamW(0.125, beta_1=0.5, **shared)
    ours = importers.from_keras(theirs, variables())
    expected, config = theirs.get_config() | dict(epsilon_hat=True), ours.get_config()
    assert {name: config[name] for name in expected} == pytest.approx(expected)
    assert type(ours) is td.AdamW and ours.built and int(ours.iterations) == 0


@pytest.mark.parametrize("kind", ["begun.keras", "begun.weights.h5", "model"])
def test_accumulation_goes_on_between_groups_and_raises_within_one(kind, tmp_path):
    make = keras_rule("Adam", gradient_accumulation_steps=3)
    begun = trained(make())
    twins = twin_of(begun).trainable_variables
    ours = importers.from_keras(make(), twins, **PLAIN)
    ours.set_state(importers.keras_state(stored(begun, kind, tmp_path), ours))
    assert int(ours.iterations) == BEFORE / 3
    assert_follows(begun, ours, twins)  # 11 micro-steps, with those before
    with pytest.raises(ValueError, match=r"middle of a group.* 11 micro-steps, 3 to an update"):
        importers.keras_state(stored(begun, kind, tmp_path), ours)


def test_averages_go_on_once_their_bias_is_gone_and_raise_before():
    make = keras_rule("SGD", use_ema=True, ema_momentum=0.06, ema_overwrite_frequency=7)
    begun = trained(make())  # 0.06⁶ < 2⁻²⁴ < 0.06⁵
    twins = twin_of(begun).trainable_variables
    assert_follows(begun, importers.from_keras(begun.optimizer, twins, **PLAIN), twins)
    for k, steps, words in ((None, 5, "t=5, .*=False"), (2, 12, "t=6, .*accumulated=True")):
        begun = trained(make(gradient_accumulation_steps=k), steps)
        with pytest.raises(ValueError, match=f"averages have no bias correction.*{words}"):
            importers.from_keras(begun)
        assert importers.from_keras(begun, use_ema=False).built


def two_layers(name):
    """Variables of a layer of this name, and of a layer "b" in a layer "a"."""
    inner = keras.Sequential([layers.Dense(3, name="b")], name="a")
    return keras.Sequential([layers.Input((3,)), layers.Dense(3, name=name), inner])


def without_decay_of_the_first(trainable):
    theirs = RULES["AdamW"]()
    theirs.exclude_from_weight_decay(var_list=trainable[:1])
    return built(theirs, trainable)


def test_what_does_not_decay_is_told_apart_from_its_namesake():
    trainable = two_layers("b").trainable_variables
    ours = importers.from_keras(without_decay_of_the_first(trainable), trainable)
    assert [row.decays for row in ours.decay_report().rows] == [False, True, True, True]


@pytest.mark.parametrize(
    "trainable, words",
    [
        (two_layers("a_b").trainable_variables, "fit more than one variable"),
        ([keras.Variable([1.0], name="w") for _ in range(2)], "too alike"),
    ],
)
def test_paths_that_can_not_be_told_apart_raise(trainable, words):
    theirs = without_decay_of_the_first(trainable)
    with pytest.raises(ValueError, match=words):
        importers.from_keras(theirs, trainable)


@pytest.mark.parametrize(
    "make,error,words",
    [
        (optimizers.Muon, TypeError, "Keras's Adadelta, .*SGD can be imported"),
        (lambda: optimizers.Lamb(weight_decay=0.1), ValueError, "inside.*pass `weight_decay=`"),
        (lambda: optimizers.Adafactor(COSINE), ValueError, "smaller of its schedule and 1/√t"),
        (lambda: optimizers.LossScaleOptimizer(optimizers.SGD()), TypeError, "`inner_optimizer`"),
        (lambda: optimizers.SGD(model), ValueError, "A callable can't be read"),
        (
            lambda: optimizers.SGD(COSINE, gradient_accumulation_steps=2),
            ValueError,
            "count micro-steps",
        ),
        (lambda: "begun", ValueError, "stand in `.keras` files only"),
    ],
)
def test_what_can_not_be_imported_from_keras_raises(make, error, words):
    with pytest.raises(error, match=words):
        importers.from_keras(make(), variables())


@pytest.mark.parametrize("make", [lambda: built(td.Amos()), lambda: td.Lookahead(td.SGD()), td.SGD])
def test_state_goes_only_into_a_built_optimizer_of_the_same_rule(make):
    for state in (importers.keras_state, functools.partial(importers.torch_state, names={})):
        with pytest.raises(TypeError, match=r"imported into td\.Adadelta, .*td\.SGDW.*once built"):
            state({}, make())


def test_sources_that_do_not_fit_raise(tmp_path):
    with pytest.raises(ValueError, match="`variables` must be given"):
        importers.from_keras(optimizers.SGD())
    with pytest.raises(ValueError, match=r"unexpected: \['sequential_dense_bias_momentum'"):
        importers.from_keras(trained(RULES["SGD-momentum"]()).optimizer, variables())
    ours, begun = built(td.AdamW()), trained(RULES["SGD"]())
    with pytest.raises(ValueError, match=r"keeps these 10 arrays.* Received: 2 in"):
        importers.keras_state(stored(begun, "begun.weights.h5", tmp_path), ours)
    with pytest.raises(ValueError, match=r"no slots to import.* 6 updates for a AdamW"):
        importers.keras_state(stored(begun, "model", tmp_path), ours)
    two = tf.train.Checkpoint(a=begun.optimizer, b=trained(RULES["Adam"]()).optimizer)
    with pytest.raises(ValueError, match="Received: 2 optimizers"):
        importers.keras_state(two.write(tmp_path / "two"), ours)
    frozen = trained(RULES["Adam"]())
    frozen.layers[0].trainable = False
    with pytest.raises(ValueError, match="Skipping variable loading"):
        importers.from_keras(stored(frozen, "begun.keras", tmp_path), frozen.trainable_variables)


LAYERS = {"sequential/hid_den": "0", "sequential/dense": "2"}
NAMES = {f"{ours}/kernel": f"{n}.weight" for ours, n in LAYERS.items()}
NAMES |= {f"{ours}/bias": f"{n}.bias" for ours, n in LAYERS.items()}


class Torch:
    """A PyTorch optimizer with parameters of its own, (out, in); those of `plain` don't decay."""

    def __init__(self, name, plain=(), steps=BEFORE):
        (self.rule, self.options), self.plain = TORCH[name], list(plain)
        self.variables, grads = model().trainable_variables, gradients(SHAPES, steps + AFTER)
        self.parameters = {NAMES[v.path]: np.float64(v).T for v in self.variables}
        self.state, self.later = {name: {} for name in self.parameters}, grads[steps:]
        self.names = [name for name in self.parameters if name not in self.plain] + self.plain
        self.run(grads[:steps])
        for v, p in zip(self.variables, self.parameters.values(), strict=True):
            v.assign(p.T)

    def run(self, steps):
        for gs in steps:
            for name, g in zip(self.parameters, gs, strict=True):
                λ = 0.0 if name in self.plain else self.options["weight_decay"]
                p, options = self.parameters[name], self.options | dict(weight_decay=λ)
                after = self.rule(p, np.float64(g).T, self.state[name], **options)
                self.parameters[name], self.state[name] = after

    def state_dict(self, **change):
        """Numbered, with the parameters that decay in the first group; `change` is of the last."""
        n, end = len(self.parameters) - len(self.plain), len(self.parameters)
        groups = [self.options | dict(params=list(range(n)), foreach=None)]
        groups += [groups[0] | dict(params=list(range(n, end)), weight_decay=0.0)] * (n < end)
        groups[-1] |= change
        state = {i: self.state[name] for i, name in enumerate(self.names) if self.state[name]}
        return dict(state=state, param_groups=groups)

    def assert_followed_by(self, ours):
        self.run(self.later)
        expected = self.parameters.values()
        for a, b in zip(run(ours, self.variables, self.later), expected, strict=True):
            np.testing.assert_allclose(a, b.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name,steps", [*((name, BEFORE) for name in TORCH), ("AdamW", 0)])
def test_a_torch_optimizer_goes_on_here(name, steps):
    theirs = Torch(name, ["0.bias", "2.bias"], steps)
    given = dict(parameters=theirs.names, iterations=steps, **PLAIN)
    if steps:  # another rate, too
        theirs.options = theirs.options | dict(lr=0.05)
        given["learning_rate"] = 0.05
    ours = importers.from_torch(theirs.state_dict(), theirs.variables, NAMES, **given)
    assert [cell.decays for cell in ours.cells] == [True, False, True, False]
    assert int(ours.iterations) == steps
    theirs.assert_followed_by(ours)


def test_torch_entries_by_name_go_on_in_an_optimizer_of_ones_own():
    theirs = Torch("AdamW")
    ours = td.AdamW(0.01, 0.3, beta_1=0.8, beta_2=0.99, amsgrad=True, **PLAIN)
    built(ours, theirs.variables)
    ours.set_state(importers.torch_state(theirs.state, ours, NAMES.get))
    theirs.assert_followed_by(ours)


def test_momentum_under_a_schedule_needs_the_next_rate():
    theirs = Torch("SGD", steps=1)
    ours = built(td.SGD(COSINE, momentum=0.9), theirs.variables)
    with pytest.raises(ValueError, match="pass the rate of the next step"):
        importers.torch_state(theirs.state, ours, NAMES)
    state = importers.torch_state(theirs.state, ours, NAMES, learning_rate=0.25)
    b = theirs.state["2.bias"]["momentum_buffer"]
    np.testing.assert_allclose(state["sequential/dense/bias:m"], 0.25 * b, rtol=1e-6)


def test_torch_state_that_does_not_fit_is_listed():
    theirs = Torch("Adam", steps=1)
    theirs.state["stranger"] = {"step": theirs.state["0.bias"]["step"]}
    theirs.state["2.weight"]["ema"] = theirs.state["0.bias"].pop("exp_avg")
    words = r"missing: \['sequential/hid_den/bias:m'\].*unexpected: \['2.weight:ema', 'stranger:"
    ours = built(td.Adam(), theirs.variables)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        ours.set_state(importers.torch_state(theirs.state, ours, NAMES))


@pytest.mark.parametrize(
    "name,plain,change,given,words",
    [
        ("AdamW", ["2.bias"], dict(lr=0.5), {}, "Groups may differ in whether they decay"),
        ("AdamW", ["2.bias"], dict(weight_decay=0.5), {}, r"not in more.*in \[0.3, 0.5\]"),
        ("AdamW", [], dict(maximize=True), {}, "don't exist here.*'maximize': True"),
        ("SGD", [], dict(dampening=0.5), {}, "don't exist here.*'dampening': 0.5"),
        ("SGD", [], dict(centered=True), {}, r"must be those of PyTorch's .*centered"),
        ("SGD", [], {}, dict(decoupled=True), r"must be those of PyTorch's .*decoupled=True"),
        ("AdamW", [], dict(decoupled_weight_decay=None), {}, "AdamW's or the L2 of Adam"),
        ("AdamW", [], {}, dict(parameters=["0.weight"]), r"numbers.*parameters=\['0.weight'\]"),
        ("AdamW", [], {}, dict(parameters=None), "numbers.*parameters=None for"),
        ("AdamW", [], dict(params=list("abcd")), {}, "numbers, and no others"),
        ("AdamW", [], {}, dict(names={}), "a name of its own in PyTorch.*hid_den/kernel': None"),
        ("AdamW", [], {}, dict(iterations=3), "same number of steps.*iterations=3"),
    ],
)
def test_what_can_not_be_imported_from_torch_raises(name, plain, change, given, words):
    theirs = Torch(name, plain, steps=1)
    given = dict(names=NAMES, parameters=theirs.names) | given
    with pytest.raises(ValueError, match=words):
        importers.from_torch(theirs.state_dict(**change), theirs.variables, **given)


def test_what_a_torch_file_does_not_say_is_asked_of_the_caller():
    theirs = Torch("Adam", steps=1)
    old = theirs.state_dict(decoupled_weight_decay=None, param_names=theirs.names)
    for decoupled, cls in ((True, td.AdamW), (False, td.Adam)):
        ours = importers.from_torch(old, theirs.variables, NAMES, decoupled=decoupled)
        assert type(ours) is cls
    with pytest.raises(ValueError, match="`param_groups` of a whole state_dict"):
        importers.from_torch(theirs.state, theirs.variables, NAMES)


def correlate(x, w, groups=1):
    """torch.nn.functional.conv{n}d without padding: x (I, *space), w (O, I / groups, *window)."""
    patches = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], tuple(range(1, x.ndim)))
    each, last = np.split(patches, groups), "xyz"[: w.ndim - 2]
    formula = f"i...{last},i{last}->..."
    return np.stack([np.einsum(formula, each[o * groups // len(w)], w[o]) for o in range(len(w))])


def with_kernel(layer, shape, w):
    layer.build(shape)
    layer.trainable_variables[0].assign(importers.torch_layout(layer.trainable_variables[0], w))
    return lambda x: np.moveaxis(layer(np.moveaxis(x, 0, -1)[None]).numpy()[0], -1, 0)


@pytest.mark.parametrize(
    "layer,shape,groups",
    [
        (layers.Conv1D(5, 2), (5, 3, 2), 1),
        (layers.Conv2D(5, (2, 3)), (5, 4, 2, 3), 1),
        (layers.Conv2D(6, 2, groups=2), (6, 2, 2, 2), 2),
        (layers.DepthwiseConv2D((2, 3), depth_multiplier=2), (6, 1, 2, 3), 3),
    ],
)
def test_a_torch_kernel_in_our_layout_computes_the_same(layer, shape, groups):
    x = np.random.rand(groups * shape[1], *range(5, 3 + len(shape))).astype("float32")
    w = np.random.rand(*shape).astype("float32")
    ours = with_kernel(layer, (1, *x.shape[1:], x.shape[0]), w)
    np.testing.assert_allclose(ours(x), correlate(x, w, groups), rtol=1e-4, atol=1e-5)


def test_a_torch_kernel_of_a_transposed_convolution_is_the_adjoint_of_the_convolution():
    x, y, w = (np.random.rand(*n).astype("float32") for n in [(4, 5, 6), (3, 4, 4), (3, 4, 2, 3)])
    ours = with_kernel(layers.Conv2DTranspose(4, (2, 3)), (1, 4, 4, 3), w)
    np.testing.assert_allclose(np.sum(ours(y) * x), np.sum(correlate(x, w) * y), rtol=1e-4)


def test_embeddings_are_laid_out_alike_and_what_can_not_be_told_needs_a_layout():
    array, gru = np.ones((3, 3), "float32"), layers.GRU(3)
    gru.build((1, 2, 3))
    embeddings, own = (keras.Variable(array, name=name) for name in ("embeddings", "own"))
    assert importers.torch_layout(embeddings, array) is array
    for v in (own, gru.trainable_variables[0]):
        with pytest.raises(ValueError, match=r"can't be told from its path. Pass `layout=`"):
            importers.torch_layout(v, array)
    ours, entries = built(td.SGD(1.0, momentum=0.9), [own]), {"w": {"momentum_buffer": array}}
    state = importers.torch_state(entries, ours, {"own": "w"}, layout=lambda v, a: a + 1)
    np.testing.assert_array_equal(state["own:m"], array + 1)


def link(file, kind):
    """Puts in the place of the first slot, or of all variables, what lies in another file."""
    elsewhere, variables = file.filename.replace("linked", "elsewhere"), file["optimizer/vars"]
    shape = variables["2"].shape
    with h5py.File(elsewhere, "w") as other:
        other["secret"] = np.ones(shape, "float32")
        other.create_group("all")
    if kind == "the group elsewhere":
        del file["optimizer/vars"]
        file["optimizer/vars"] = h5py.ExternalLink(elsewhere, "all")
        return
    del variables["2"]
    if kind == "external link":
        variables["2"] = h5py.ExternalLink(elsewhere, "secret")
    elif kind == "soft link":
        variables["2"] = h5py.SoftLink("/optimizer/vars/3")
    elif kind == "external storage":
        variables.create_dataset(
            "2", shape, "float32", external=[(elsewhere, 0, h5py.h5f.UNLIMITED)]
        )
    else:
        layout = h5py.VirtualLayout(shape, "float32")
        layout[:] = h5py.VirtualSource(elsewhere, "secret", shape)
        variables.create_virtual_dataset("2", layout)


@pytest.mark.parametrize(
    "kind",
    ["external link", "soft link", "external storage", "virtual dataset", "the group elsewhere"],
)
def test_a_weights_file_brings_its_own_numbers_and_reads_no_other_file(kind, tmp_path):
    path = stored(trained(keras_rule("Adam")()), "begun.weights.h5", tmp_path)
    with h5py.File(path, "r+") as file, h5py.File(tmp_path / "linked.weights.h5", "w") as linked:
        file.copy("optimizer", linked)
        link(linked, kind)
    ours = built(td.Adam(0.001, epsilon_hat=True, **PLAIN))
    before = ours.get_state()
    words = r"own numbers only.*linked.weights.h5.*optimizer/vars"
    with pytest.raises(ValueError, match=words):
        importers.keras_state(str(tmp_path / "linked.weights.h5"), ours)
    assert all(np.array_equal(before[name], value) for name, value in ours.get_state().items())
