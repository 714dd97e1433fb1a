"""docs/migrating.md runs, and `python -m tf_decoupled.migrate` says what stands there."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import tqdm.keras

import tf_decoupled as td
from tf_decoupled.experiments import app
from tf_decoupled.migrate import command, findings
from tf_decoupled.migrate.rules import KERAS, RULES

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "migrating.md").read_text()
PACKAGE = pathlib.Path(td.__file__).parent
IMPORTS = """\
import keras, optax, timm, torch, transformers
import tensorflow as tf
import tensorflow_addons as tfa
"""


def page():
    """Section, their line and ours of each row of the page."""
    rows, section = [], ""
    for line in PAGE.splitlines():
        section = line[3:] if line.startswith("## ") else section
        if line.startswith("| ") and not line.startswith("| yours"):
            theirs, ours, because = re.split(r"(?<!\\) \| ", line.strip("| ") + " | ", maxsplit=2)
            assert re.fullmatch(r"`[^`]+`", ours), line
            rows.append((section, theirs, ours.strip("`"), because))
    return rows


ROWS = page()
ids = [theirs.strip("`")[:50] for _, theirs, _, _ in ROWS]
KERAS_ROWS = [
    row for row in ROWS if row[1].startswith("`keras.optimizers.") and "Muon" not in row[1]
]


def same(code):
    """Code but for spelling."""
    return ast.unparse(ast.parse(code))


def found(code):
    """The findings in a line of code, after these imports."""
    return [f for f in findings(IMPORTS + code) if f.line > IMPORTS.count("\n")]


def suggested(code):
    (finding,) = found(code)
    return finding.new


def context():
    """What the lines of the page speak of."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile(td.SGD(0.1, jit_compile=False), "mse")
    x = tf.ones((2, 2))
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    variables = model.trainable_variables
    opt = td.SGD(0.1)
    return dict(
        **dict(td=td, tf=tf, keras=keras, tqdm=tqdm, time=time, end=time.time(), model=model, x=x),
        **dict(tape=tape, loss=loss, variables=variables, grads=tape.gradient(loss, variables)),
        **dict(opt=opt, kernels=[variables[0]], scale=lambda cycle: 1 / cycle),
        schedule=td.schedules.Cosine(5e-5, 100),
    )


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_our_line_runs(row):
    exec(row[2], context())


def test_what_is_told_beside_the_lines_runs_too():
    codes = [code for row in ROWS for code in re.findall(r"`(td\.[^`]*\))`", row[3])]
    codes = [code.replace("\\|", "|").replace("(...)", "('bias')") for code in codes]
    assert len(codes) > 10
    for code in codes:
        exec(code, context())


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_the_command_says_what_the_page_says(row):
    _, theirs, ours, _ = row
    found_in = found(theirs.strip("`")) if re.fullmatch(r"`[^`]+`", theirs) else []
    told = [f for f in found_in if f.new and "by hand" not in f.why and "groups" not in f.why]
    if told:
        (finding,) = told
        assert same(theirs.strip("`").replace(finding.old, finding.new)) == same(ours)
    covered = r"`(tf\.keras|keras|transformers|timm|optax|torch)\.(optim|create)|`tfa"
    assert found_in or not re.match(covered, theirs), "the command doesn't know this line"


@pytest.mark.parametrize("row", KERAS_ROWS, ids=lambda row: row[1])
def test_lines_of_keras_3_take_the_steps_of_ours(row):
    ends = []
    for code in (row[1].strip("`"), row[2]):
        v = keras.Variable([[1.0, -2.0], [0.5, 3.0]], name="kernel")
        optimizer = eval(code, dict(td=td, keras=keras))
        for g in ([[0.1, 0.3], [-0.2, 1.0]], [[0.2, -0.3], [-0.1, 0.5]], [[0.0, 0.1], [1.0, 2.0]]):
            optimizer.apply([tf.constant(g)], [v])
        ends.append(v.numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=2e-5)


def defaults(theirs, ours, rule):
    """Their default and ours, of each argument that isn't written."""
    for name, parameter in inspect.signature(theirs).parameters.items():
        new = rule.names.get(name, name)
        if name in rule.order and new in ours and parameter.default not in (inspect._empty, None):
            yield name, parameter.default, float(rule.given.get(new, ours[new].default))


def check_rules(prefix, modules):
    checked = 0
    for full, rule in RULES.items():
        if not full.startswith(f"{prefix}.") or rule.by_hand or rule.order is None:
            continue
        theirs = modules
        for part in full[len(prefix) + 1 :].split("."):
            theirs = getattr(theirs, part)
        names = [n for n in inspect.signature(theirs).parameters if n not in ("args", "kwargs")]
        assert tuple(names[: len(rule.order)]) == rule.order, full
        ours = inspect.signature(eval(rule.to, dict(td=td))).parameters
        assert {rule.names.get(n, n) for n in rule.order} - {None, "betas"} <= {*ours}, full
        for name, there, here in defaults(theirs, ours, rule):
            if name != "betas":
                assert here == there, (full, name)
                checked += 1
    return checked


def test_arguments_that_are_not_written_keep_keras_numbers():
    assert check_rules(KERAS, keras.optimizers) > 30


def test_arguments_that_are_not_written_keep_optax_numbers():
    assert check_rules("optax", pytest.importorskip("optax")) > 20


def test_arguments_that_are_not_written_keep_pytorchs_numbers():
    assert check_rules("torch.optim", pytest.importorskip("torch").optim) > 15


def test_a_rule_names_what_there_is():
    for full, rule in RULES.items():
        eval(rule.to, dict(td=td, keras=keras, tqdm=tqdm)), full


@pytest.mark.parametrize(
    "imports, call",
    [
        ("import tensorflow as tf", "tf.keras.optimizers.Adamax(0.1)"),
        ("import tensorflow as tf", "tf.keras.optimizers.legacy.Adamax(0.1)"),
        ("import tensorflow as tf", "tf.optimizers.Adamax(0.1)"),
        ("import tensorflow.compat.v2 as t", "t.keras.optimizers.Adamax(0.1)"),
        ("import tensorflow.keras.optimizers as o", "o.Adamax(0.1)"),
        ("import tensorflow.keras", "tensorflow.keras.optimizers.Adamax(0.1)"),
        ("from tensorflow import keras", "keras.optimizers.experimental.Adamax(0.1)"),
        ("from tensorflow.keras import optimizers", "optimizers.Adamax(0.1)"),
        ("from tensorflow.keras.optimizers.legacy import Adamax", "Adamax(0.1)"),
        ("from keras.optimizers import Adamax as A", "A(0.1)"),
        ("from tf_keras.optimizers import Adamax", "Adamax(0.1)"),
        ("import keras\nA = keras.optimizers.Adamax", "A(0.1)"),
        ("import keras\nO = keras.optimizers", "O.Adamax(learning_rate=0.1)"),
    ],
)
def test_names_are_followed_through_imports_and_assignments(imports, call):
    *_, last = findings(f"{imports}\nopt = {call}\n")
    assert (last.old, last.new) == (call, "td.Adamax(0.1)")


@pytest.mark.parametrize(
    "code, new",
    [
        ("keras.optimizers.SGD(lr=0.1)", "td.SGD(0.1)"),
        ("keras.optimizers.SGD(decay=1e-4)", "td.SGD(td.schedules.InverseTime(0.01, 1, 1e-4))"),
        ("keras.optimizers.SGD(**options)", "td.SGD(**options)"),
        ("keras.optimizers.SGD(1_0, name=f'é{1}')", "td.SGD(1_0, name=f'é{1}')"),
        ("keras.optimizers.SGD(0.1, is_legacy_optimizer=True)", "td.SGD(0.1)"),
        ("tfa.optimizers.SWA(keras.optimizers.SGD(0.1))", "td.addons.SWA(td.SGD(0.1))"),
        ("isinstance(opt, keras.optimizers.SGD)", "td.SGD"),
        ("model.compile('sgd', 'mse')", "td.SGD()"),
        ("model.compile(optimizer='Adam')", "td.Adam(epsilon=1e-7, epsilon_hat=True)"),
        (
            "torch.optim.AdamW(p, lr=0.1, betas=betas)",
            "td.AdamW(0.1, beta_1=betas[0], beta_2=betas[1])",
        ),
        (
            "torch.optim.RMSprop(p, 7e-4, 0.9, eps=1e-5)",
            "td.RMSprop(7e-4, rho=0.9, epsilon=1e-5 ** 2)",
        ),
        (
            "torch.optim.Adam(p, weight_decay=0.1, decoupled_weight_decay=True)",
            "td.AdamW(weight_decay=0.1)",
        ),
        ("torch.optim.Adam(p, weight_decay=0.1)", "td.Adam(l2=0.1)"),
        ("optax.contrib.muon(0.1)", "td.Muon"),
        (
            "transformers.WarmUp(1e-3, schedule, 100, 2.0)",
            "td.schedules.Warmup(schedule, warmup_steps=100)",
        ),
        ("make(optimizer=keras.optimizers.SGD(0.1))", "td.SGD(0.1)"),
    ],
)
def test_a_call_is_rewritten(code, new):
    assert suggested(code) == new


def test_what_is_left_out_is_said():
    assert "`mask=` is left out" in found("optax.adamw(1e-3, mask=m)")[0].why
    assert "`maximize=` is left out" in found("torch.optim.AdamW(p, maximize=True)")[0].why
    assert "check their order" in found("keras.optimizers.SGD(*given)")[0].why
    assert "groups" in found("torch.optim.SGD([dict(params=p)], 0.1)")[0].why
    assert "td.addons has no such name" in found("tfa.optimizers.Nothing(0.1)")[0].why


def test_names_behind_a_star_are_told_of():
    assert "can't be followed" in findings("from keras.optimizers import *\nAdam(0.1)")[0].why
    assert not findings("from os import *")


def test_a_class_that_is_passed_on_needs_the_arguments_where_it_is_called():
    why = "where it is called, with epsilon=1e-7, epsilon_hat=True"
    assert why in found("make(keras.optimizers.Adam)")[0].why


def test_imports_keep_what_is_not_replaced():
    (finding,) = findings("from transformers import create_optimizer, AutoModel")
    assert finding.new == "import tf_decoupled as td; from transformers import AutoModel"
    (finding,) = findings("from keras.optimizers.legacy import Optimizer")
    assert "gone in Keras 3" in finding.why and "td has no Optimizer" in finding.why
    for kept in ("", "; import os"):
        (finding,) = findings(f"import tensorflow_addons as tfa{kept.replace('; import', ',')}")
        assert finding.new == f"import tf_decoupled as td{kept}"


@pytest.mark.parametrize(
    "code",
    [
        "opt.lr = 0.1",  # of arguments, for all one knows
        "from . import optimizers\noptimizers.Adam(0.1)",
        "Adam = lambda lr: lr\nAdam(0.1)",
        "keras.optimizers.schedules.CosineDecay(0.1, 10)",
        "compile('adam')",
        "tfa.metrics.F1Score(3)",
        "import tf_decoupled as td\ntd.Adam(0.1)",
        "",
    ],
)
def test_what_is_no_optimizer_stays(code):
    assert not found(code)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\nlr = cfg.optimizer.lr",
        "import scipy\noptimizer.minimize(f)",
        "import torch\nopt = torch.optim.Adam(p)\nopt.minimize(f)",
    ],
)
def test_optimizers_that_are_not_of_keras_keep_their_attributes(code):
    assert not any(finding.old.endswith((".lr", ".minimize")) for finding in findings(code))


def test_whatever_is_imported_from_addons_is_told():
    for code in (
        "from tensorflow_addons.metrics import F1Score",
        "from tensorflow_addons import x",
    ):
        assert "Addons doesn't run with Keras 3" in findings(code)[0].why


def test_attributes_of_what_was_made_as_an_optimizer_are_known():
    finding = findings("import keras\nopt = keras.optimizers.SGD(0.1)\nopt.lr = 0.2\n")[-1]
    assert (finding.old, finding.new) == ("opt.lr", "opt.learning_rate")


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of the command in this process."""
    code = command.main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def test_the_command_prints_line_replacement_and_reason_and_changes_nothing(tmp_path, capsys):
    file = tmp_path / "train.py"
    text = "# -*- coding: latin-1 -*-\n# Schrittlänge\nimport keras\n"
    text += "\nopt = keras.optimizers.SGD(\n    lr=0.1\n)\n"
    file.write_bytes(text.encode("latin-1"))
    code, out, err = run(capsys, file)
    assert (code, err) == (1, "")
    first, second, third = out.splitlines()
    assert first == f"{file}:5: keras.optimizers.SGD( lr=0.1 )"
    assert second == "  -> td.SGD(0.1)" and "`lr=` is called `learning_rate=`" in third
    assert file.read_bytes() == text.encode("latin-1")
    assert run(capsys, tmp_path) == run(capsys, file)


def test_a_file_with_nothing_to_change_exits_with_0(tmp_path, capsys):
    (tmp_path / "empty.py").write_text("")
    assert run(capsys, tmp_path / "empty.py") == (
        0,
        "Nothing to change, of what this command knows.\n",
        "",
    )


@pytest.mark.parametrize(
    "name, contents, words",
    [
        (
            "wrong.py",
            b"def f(:\n",
            "wrong.py:1: this is no Python that can be read: invalid syntax",
        ),
        ("zero.py", b"x = '\0'\n", "this is no Python that can be read"),
        ("coded.py", b"\xff\xfe\n", "this is no Python that can be read"),
        ("deep.py", b"x = " + b"(" * 10_000, "this is no Python that can be read"),
        ("missing.py", None, "can't be read: No such file"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(tmp_path, capsys, name, contents, words):
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    (tmp_path / "good.py").write_text("import keras\nkeras.optimizers.SGD(0.1)\n")
    code, out, err = run(capsys, tmp_path / name, tmp_path / "good.py")
    assert code == 2 and words in err and len(err.splitlines()) == 1
    assert "td.SGD(0.1)" in out  # the others are read all the same


def test_wrong_command_lines_are_one_line_and_exit_code_2(tmp_path, capsys):
    for arguments, words in ([], "it needs files"), (["--fix", "a.py"], "unknown flag '--fix'"):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and words in err and len(err.splitlines()) == 1
    code, _, err = run(capsys, tmp_path)
    assert code == 2 and "a folder without Python files" in err
    assert run(capsys, "--help")[0] == 0


@pytest.mark.parametrize("named", [True, False])
def test_the_verb_is_the_same_command(tmp_path, capsys, named):
    file = tmp_path / "train.py"
    file.write_text("import keras\nkeras.optimizers.SGD(0.1)\n")
    given = f"--file={file}" if named else str(file)
    with pytest.raises(SystemExit) as end:
        app.main(app.parse(["tf-decoupled", "migrate", given]))
    assert (end.value.code, capsys.readouterr().out) == (1, run(capsys, file)[1])
    with pytest.raises(SystemExit) as end:
        app.main(app.parse(["tf-decoupled", "migrate"]))
    assert end.value.code == 2 and "needs a file" in capsys.readouterr().err


def test_the_files_of_the_command_import_pythons_own_modules_alone():
    for path in (PACKAGE / "migrate").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("tf_decoupled.migrate")
                assert own or name.partition(".")[0] in sys.stdlib_module_names, (path.name, name)


@pytest.mark.slow
def test_the_module_runs_as_a_command(tmp_path):
    file = tmp_path / "train.py"
    file.write_text("import tensorflow_addons as tfa\ntfa.optimizers.COCOB()\n")
    command_line = [sys.executable, "-W", "error", "-m", "tf_decoupled.migrate", str(file)]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 1 and "-> td.addons.COCOB()" in done.stdout
