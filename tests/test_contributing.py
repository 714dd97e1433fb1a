"""An optimizer is added as CONTRIBUTING says, from outside: the table's properties hold of it.

And they don't of one that is wrong.
"""

import inspect
import itertools
import pathlib
import re

import numpy as np
import pytest
import references
import tensorflow as tf
import test_probes
import test_rules
import test_whole
from cases import Case, like

import tf_decoupled as td
from tf_decoupled.engine.rule import Rule
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema

HOUSE = pathlib.Path(__file__).parents[1]

# Step 1: the rule.


class AdaMax(td.Optimizer):
    """m ← β₁ m + (1 − β₁) g,  v ← max(β₂ v, |g|),  u = m / (1 − β₁ᵗ) / v, and 0 where v is.

    Kingma & Ba 2015, algorithm 2. arXiv:1412.6980
    """

    learning_rate: td.Scalar = 2e-3
    beta_1: td.Beta = 0.9
    beta_2: td.Beta = 0.999

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = tf.maximum(h.beta_2 * s.v, tf.abs(g))
        return tf.math.divide_no_nan(m / h.correction.beta_1, v), dict(m=m, v=v)


class Uphill(AdaMax):
    """AdaMax with the sign flipped."""

    def update(self, p, g, s, h):
        u, slots = super().update(p, g, s, h)
        return -u, slots


class Minimum(AdaMax):
    """AdaMax with one letter wrong, which the first step doesn't show."""

    def update(self, p, g, s, h):
        u, slots = super().update(p, g, s, h)
        v = tf.where(s.v > 0, tf.minimum(s.v, tf.abs(g)), slots["v"])
        return u * tf.math.divide_no_nan(slots["v"], v), slots | dict(v=v)


# Step 2: the same from the paper.


@references.reference
def adamax(steps, beta_1=0.9, beta_2=0.999):
    """Kingma & Ba 2015, algorithm 2; it doesn't say what 0 / 0 is: here 0."""
    m = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m = beta_1 * m + (1 - beta_1) * g
        v = np.maximum(beta_2 * v, np.abs(g))
        yield theta - lr / (1 - beta_1**t) * m / np.where(v, v, 1.0) - delta


# Step 3: one row.

ROW = dict(
    reference=adamax,
    slots=like("m", "v"),
    ranges=dict(beta_1=(0.0, 0.999), beta_2=(0.0, 0.999)),
    largest_gradient=float(np.finfo("float32").max),
    scale_free={},
)
RIGHT = Case(name="AdaMax", optimizer=AdaMax, **ROW)
WRONG = [Case(name=cls.__name__, optimizer=cls, **ROW) for cls in (Uphill, Minimum)]


def properties(case, *modules):
    """The tests of rows that hold of this one, and the arguments of each of their runs."""
    tests = {name: test for module in modules for name, test in vars(module).items()}
    return [
        pytest.param(test, run, id=name)
        for name, test in tests.items()
        if name.startswith("test_") and "case" in inspect.signature(test).parameters
        if getattr(test, "fact", lambda case: True)(case)
        for run in runs(test)
    ]


def runs(test):
    """The values of what a test is parametrized with, beside the row."""
    marks = [mark.args for mark in test.pytestmark if mark.name == "parametrize"]
    others = [[(name, value) for value in values] for name, values, *_ in marks if name != "case"]
    return map(dict, itertools.product(*others))


def call(test, case, arguments, request):
    """Calls a test on a row, with the fixtures that it asks for."""
    asked = inspect.signature(test).parameters.keys() - {"case", *arguments}
    test(case=case, **arguments, **{name: request.getfixturevalue(name) for name in asked})


@pytest.mark.xla
@pytest.mark.parametrize("test,arguments", properties(RIGHT, test_rules, test_whole, test_probes))
def test_each_property_of_a_row_holds_of_one_from_outside(test, arguments, request):
    call(test, RIGHT, arguments, request)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "test",
    [
        test_rules.test_in_float64_it_is_the_paper_to_the_last_digits,
        test_rules.test_with_any_numbers_and_shapes_it_is_the_paper,
        test_rules.test_a_thousand_steps_equal_the_paper,
        test_whole.test_the_compiled_step_ends_where_eager_code_and_the_paper_do,
    ],
)
def test_a_wrong_rule_is_found_out(test, wrong, request):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        call(test, wrong, {}, request)


def steps():
    """The four steps in words."""
    text = (HOUSE / "CONTRIBUTING.md").read_text()
    section = text.partition("## Add an optimizer in four steps")[2].partition("\n## ")[0]
    return [section, *re.findall(r"^\d\. (.*?)(?=^\d\. |\n\n)", section, re.M | re.S)]


def test_there_are_four_steps_and_each_file_that_they_name_is_there():
    section, *each = steps()
    assert len(each) == 4
    for path in re.findall(r"`([\w/]+\.py)`", section):
        places = [HOUSE / path, HOUSE / "tests" / path, HOUSE / "tf_decoupled" / path]
        assert any(place.exists() for place in places) or path.endswith("/name.py"), path
    assert (HOUSE / "tf_decoupled/optimizers").is_dir()


def test_each_method_that_the_steps_name_is_a_hook_of_rules():
    hooks = re.findall(r"`([a-z]+)`", steps()[1])
    assert {"init", "update", "step", "refuses", "shared", "reduce", "combine"} <= set(hooks)
    assert all(callable(getattr(Rule, name)) for name in hooks)
