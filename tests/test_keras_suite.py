"""Keras's own tests of its optimizers, run on ours at Keras's defaults; what differs is listed."""

import contextlib
import importlib.util
import itertools
import pathlib
import unittest
from typing import NamedTuple
from unittest import mock

import pytest

import tf_decoupled as td
from tf_decoupled.engine.hyperparameters import Scalar

source = pytest.importorskip("keras.src.optimizers", reason="Keras keeps its optimizers elsewhere")
FOLDER = pathlib.Path(source.__file__).parent
pytest.importorskip("absl.testing", reason="Keras's tests need absl")
if not (FOLDER / "adamw_test.py").exists():
    pytest.skip("This Keras was installed without its tests", allow_module_level=True)


class AdamW(td.AdamW):
    weight_decay: Scalar = 0.004
    epsilon: Scalar = 1e-7
    epsilon_hat: bool = True
    jit_compile: bool | str = False


class Adam(td.Adam):
    epsilon: Scalar = 1e-7
    epsilon_hat: bool = True
    jit_compile: bool | str = False


class SGD(td.SGD):
    jit_compile: bool | str = False


class Lion(td.Lion):
    learning_rate: Scalar = 1e-3
    jit_compile: bool | str = False


class Lamb(td.Lamb):
    jit_compile: bool | str = False


class Adafactor(td.Adafactor):
    learning_rate: Scalar = 1e-3
    jit_compile: bool | str = False


class Nadam(td.Nadam):
    jit_compile: bool | str = False


class Adagrad(td.Adagrad):
    jit_compile: bool | str = False


class RMSprop(td.RMSprop):
    jit_compile: bool | str = False


class Adamax(td.Adamax):
    jit_compile: bool | str = False


class Adadelta(td.Adadelta):
    jit_compile: bool | str = False


class Ftrl(td.Ftrl):
    jit_compile: bool | str = False


NAMESAKES = (Nadam, Adagrad, RMSprop, Adamax, Adadelta, Ftrl)
OURS = {cls.__name__: cls for cls in (AdamW, Adam, SGD, Lion, Lamb, Adafactor, *NAMESAKES)}

FOREIGN = ("stateless", "session", "scatter_update")


class Difference(NamedTuple):
    """Why tests fail here on purpose, and words of the error that they fail with.

    `row` of docs/differences-from-keras.md says it to users.
    """

    row: str
    reason: str
    words: str
    tests: tuple[str, ...]


def each(test, *classes):
    return tuple(f"{cls}Test.{test}" for cls in classes)


EVERY = (*OURS, "Optimizer")
SPARSE = ("adafactor", "adam", "adam_amsgrad", "adamw", "adamw_amsgrad", "lion")
SPARSE += ("sgd", "sgd_momentum", "sgd_momentum_nesterov")
SPARSE += ("adadelta", "adagrad", "adamax", "ftrl", "nadam", "rmsprop", "rmsprop_momentum")
SPARSE += ("rmsprop_momentum_centered",)
DIFFERENCES = [
    Difference(
        "private",
        "They call `_clip_gradients`, a private method; here clipping is part of the compiled step",
        "A Keras Variable cannot be used as a boolean",
        (
            *each("test_clip_norm", *EVERY),
            *each("test_clip_value", *EVERY),
            "OptimizerTest.test_global_clip_norm",
        ),
    ),
    Difference(
        "private",
        "Averages are kept elsewhere, and the second one isn't 0.9 of the first: it is corrected",
        "SwapEMAWeights reads the averages of Keras's own optimizers",
        ("AdamTest.test_ema", "OptimizerTest.test_ema", "OptimizerTest.test_ema_with_model_fit"),
    ),
    Difference(
        "average",
        "Averages are corrected for their start",
        "DESIRED: array([-0.099966,  0.900017]",
        ("AdamTest.test_ema_overwrite_frequency",),
    ),
    Difference(
        "limits",
        "Momentum 1 never forgets and is refused with -1 and 2; the error has other words",
        "`momentum` must be a number in [0, 1)",
        ("SGDTest.test_invalid_momentum",),
    ),
    Difference(
        "limits",
        "Lion's β₁ may be 0 here, which is sign descent; for others the error has other words",
        "`beta_1` must be a number in [0, 1)",
        ("LionTest.test_invalid_beta_1",),
    ),
    Difference(
        "no-decay",
        "No decay may be written as None for AdamW too, as for all others in Keras",
        "ValueError not raised",
        ("AdamWTest.test_weight_decay_is_none",),
    ),
    Difference(
        "variables",
        "Each hyperparameter that is a number is a variable, so that it is live and saved",
        "AssertionError: 7 != 2",
        ("SGDTest.test_single_step",),
    ),
    Difference(
        "variables",
        "Each hyperparameter that is a number is a variable, so that it is live and saved",
        "AssertionError: 9 != 2",
        ("OptimizerTest.test_setting_lr_to_callable_untracks_lr_var",),
    ),
    Difference(
        "lamb-decay",
        "LAMB's decay is inside of the trust ratio: a gradient of 0 doesn't shrink θ by lr λ θ",
        "DESIRED: array(1.976096)",
        ("LambTest.test_weight_decay",),
    ),
    Difference(
        "adafactor-arguments",
        "Adafactor has `decay_exponent`, and a schedule for the relative step",
        "unexpected keyword argument 'beta_2_decay'",
        each("test_config", "Adafactor") + each("test_correctness_with_golden", "Adafactor"),
    ),
    Difference(
        "words",
        "Two clips at once are refused in other words",
        "Only one of `clipnorm`, `clipvalue`, `global_clipnorm` can be set",
        ("OptimizerTest.test_clip_args",),
    ),
    Difference(
        "words",
        "Numbers that are out of range are refused in other words",
        "must be a finite number",
        tuple(
            f"FtrlTest.test_invalid_{name}"
            for name in (
                "initial_accumulator_value",
                "learning_rate_power",
                "l1_regularization_strength",
                "l2_regularization_strength",
                "l2_shrinkage_regularization_strength",
            )
        ),
    ),
    Difference(
        "private",
        "It reads a private attribute; the product of momenta is a slot of each variable",
        "no attribute '_u_product'",
        ("NadamTest.test_build_with_empty_var_list",),
    ),
    Difference(
        "private",
        "It reads a private attribute; sums of gradients are among the optimizer's slots",
        "no attribute '_accumulated_gradients'",
        ("OptimizerTest.test_gradient_accumulation",),
    ),
    Difference(
        "saved-iterations",
        "It counts micro-steps by a private attribute, which here counts updates",
        "ACTUAL: array(0",
        ("OptimizerTest.test_overwrite_with_gradient_with_gradient_accumulation",),
    ),
    Difference(
        "before-build",
        "State for an optimizer that isn't built is loaded at the build",
        "ValueError not raised",
        ("OptimizerTest.test_set_weights",),
    ),
    Difference(
        "fixed-scale",
        "Gradients that were never scaled are not divided by the loss scale: that raises",
        "The gradients will be divided by the loss scale",
        ("OptimizerTest.test_static_loss_scaling",),
    ),
    Difference(
        "loss-scale-class",
        "These optimizers scale losses themselves, so they are LossScaleOptimizers without another "
        "one inside; and rows of sparse gradients are assigned inside of the compiled step",
        "no attribute 'inner_optimizer'",
        tuple(f"OptimizerSparseTest.test_sparse_gradients_{name}" for name in SPARSE),
    ),
    Difference(
        "private",
        "Variables are assigned inside of the compiled step, not by Keras's `assign`",
        "directly on a variable",
        ("OptimizerSparseTest.test_sparse_gradients_loss_scale_optimizer_sgd",),
    ),
]
DIFFERENT = {test: difference for difference in DIFFERENCES for test in difference.tests}


@contextlib.contextmanager
def in_kerass_place():
    """Ours wherever a test of Keras's looks for an optimizer: by import, as attribute, by name."""
    with contextlib.ExitStack() as stack:
        for name, cls in OURS.items():
            module = importlib.import_module(f"keras.src.optimizers.{name.lower()}")
            stack.enter_context(mock.patch.object(module, name, cls))
            if hasattr(source, name):
                stack.enter_context(mock.patch.object(source, name, cls))
        named = {name.lower(): cls for name, cls in OURS.items()}
        stack.enter_context(mock.patch.dict(source.ALL_OBJECTS_DICT, named))
        yield


def cases():
    """Each test of Keras's that makes one of these optimizers, by its name."""
    found = {}
    files = (*(name.lower() for name in OURS), "optimizer", "optimizer_sparse")
    with in_kerass_place():
        for file in (*files, "loss_scale_optimizer"):
            path = FOLDER / f"{file}_test.py"
            spec = importlib.util.spec_from_file_location(f"kerass_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for case in itertools.chain(*unittest.defaultTestLoader.loadTestsFromModule(module)):
                about = f"{case.id()} {case.shortDescription()}"  # with absl's parameters
                if not any(word in about for word in FOREIGN):
                    found[case.id().partition(".")[2]] = case
    return found


CASES = cases()


def test_each_difference_stands_on_the_page_for_users():
    page = (pathlib.Path(__file__).parents[1] / "docs/differences-from-keras.md").read_text()
    assert not [d.row for d in DIFFERENCES if f'<a id="{d.row}"></a>' not in page]


@pytest.mark.parametrize("name", CASES)
def test_kerass_own_tests_pass_except_where_ours_differ_on_purpose(name):
    result = unittest.TestResult()
    with in_kerass_place():
        CASES[name].run(result)
    failed = "".join(text for _, text in result.errors + result.failures)
    if name in DIFFERENT:
        assert failed, f"This passes now: take it off the list. It says: {DIFFERENT[name].reason}"
        assert DIFFERENT[name].words in failed, failed
    else:
        assert not failed, failed
    if result.skipped:
        pytest.skip(result.skipped[0][1])
