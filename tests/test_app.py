"""The command line: its help, and how each kind of bad input ends."""

import subprocess
import sys

import pytest
import tensorflow as tf

from tf_decoupled.experiments import app
from tf_decoupled.experiments.worker import WorkerError


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of the command in this process."""
    try:
        app.main(app.parse(["tf-decoupled", *map(str, arguments)]))
        code = 0
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def refusal(capsys, *arguments):
    code, _, stderr = run(capsys, *arguments)
    assert code == 2
    assert len(stderr.splitlines()) == 1
    return stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(capsys, arguments):
    code, stdout, stderr = run(capsys, *arguments)
    assert (code, stderr) == (0, "")
    assert all(verb in stdout for verb in app.VERBS)


@pytest.mark.parametrize("verb", app.VERBS)
def test_help_of_a_verb_has_its_flags_and_nobody_elses(capsys, verb):
    code, stdout, _ = run(capsys, verb, "--help")
    assert code == 0
    listed = [line.split()[0] for line in stdout.splitlines() if line.startswith("  --")]
    assert listed == [f"--{name.replace('_', '-')}" for name in app.VERBS[verb].flags()]
    assert max(map(len, stdout.splitlines())) <= 100
    assert "verbosity" not in stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["swep"], "Unknown verb 'swep'. Known: sweep, train, curves, plot, optimizers, migrate."),
        (["sweep", "--nope=1"], "Unknown command line flag 'nope'"),
        (["sweep", "nope"], "Flags look like --name=value. Received: nope"),
        (["sweep", "--epochs=x"], "--epochs=x"),
        (["sweep", "--epochs=0"], "epochs must be at least 1. Received: 0"),
        (["sweep", "--batch-size=-1"], "batch_size must be at least 1. Received: -1"),
        (["sweep", "--workers=0"], "workers must be at least 1. Received: 0"),
        (["sweep", "--preset=fast"], "Unknown preset 'fast'. Known: quick, standard, paper."),
        (["sweep", "--optimizer=nope"], "Unknown optimizer 'nope'. Known: adam, sgd, lars, "),
        (["sweep", "--optimizer=Lookahead"], "Those that go around others can't be swept."),
        (["sweep", "--optimizer=lamb"], "The optimizer must be LAMB or Lamb. Received: 'lamb'"),
        (["sweep", "--optimizer=lion", "--l2s=0.1"], "Lion has no coupled form: leave l2s out."),
        (["sweep", "--set=weight_decay=1"], "weight_decay is what a sweep sets itself"),
        (["sweep", "--set=nope=1"], "Adam has no argument 'nope'. Known: "),
        (["sweep", "--data=nope"], "--data looks like module:function. Received: 'nope'"),
        (["sweep", "--data=a:b", "--dataset=cifar10"], "Give one of --data and --dataset."),
        (["sweep", "--data=nope_nope:load"], "'nope_nope' can't be imported from "),
        (["train", "--model=json:nope"], "json:nope: the module has no function 'nope'."),
        (["sweep", "--schedule=linear"], "Unknown schedule 'linear'. Known: fixed, drop, cosine, "),
        (["sweep", "--coupling=none"], "Unknown coupling 'none'. Known: learning_rate, schedule,"),
        (["sweep", "--dataset=mnist"], "Unknown dataset 'mnist'. Known: fashion_mnist_small,"),
        (["sweep", "--model=vgg"], "Unknown model 'vgg'. Known: sbw16,"),
        (["sweep", "--schedule=,"], "The grid is empty: schedules has no value."),
        (["sweep", "--alphas="], "The grid is empty: alphas has no value."),
        (["sweep", "--seeds="], "The grid is empty: seeds has no value."),
        (
            ["sweep", "--alphas=-0.1"],
            "alphas must be above 0 and finite, in float32. Received: -0.1",
        ),
        (["sweep", "--alphas=0"], "alphas must be above 0 and finite, in float32. Received: 0.0"),
        (["sweep", "--alphas=inf"], "alphas must be above 0 and finite, in float32. Received: inf"),
        (["sweep", "--lambdas=-1"], "must be at least 0 and finite, in float32. Received: -1.0"),
        (["sweep", "--lambdas=nan"], "must be at least 0 and finite, in float32. Received: nan"),
        (["sweep", "--seeds=5:2"], "A range of seeds must go up. Received: '5:2'"),
        (["sweep", "--alphas=0.1:0.01"], "A range of alphas must go up from above 0."),
        (["sweep", "--alphas=fast"], "alphas must be numbers. Received: 'fast'"),
        (["sweep", "--seeds=1.5"], "seeds must be whole numbers. Received: '1.5'"),
        (["sweep", "--seeds=-1"], "A seed must be from 0 to 2147483647. Received: -1"),
        (["sweep", "--seeds=2147483648"], "to 2147483647. Received: 2147483648"),
        (["sweep", "--seeds=0:99999999999"], "seeds must be at most 1000 numbers."),
        (["sweep", "--alphas=1e39"], "alphas must be above 0 and finite, in float32. Received: 1"),
        (["sweep", "--alphas=1e-50"], "alphas must be above 0 and finite, in float32. Received: 1"),
        (["sweep", "--epochs=99999999999"], "at most 2147483647 updates. Received: 38999"),
        (["sweep", "--examples=0"], "examples must be at least 1. Received: 0"),
        (["sweep", "--epochs", "-3"], "epochs must be at least 1. Received: -3"),
        (["plot", "--csv", "-no-.csv"], "-no-.csv can't be read: No such file"),
        (["train", "--optimizer=Adamm"], "Unknown optimizer 'Adamm'. Known: A"),
        (["train", "--schedule=step"], "Unknown schedule 'step'. Known: fixed, drop, cosine, "),
        (["train", "--epochs=0"], "epochs must be at least 1. Received: 0"),
        (["train", "--epochs", "-3"], "epochs must be at least 1. Received: -3"),
        (["train", "--epochs=99999999999"], "at most 2147483647 updates. Received: 38999"),
        (["train", "--warmup=-1"], "warmup must be from 0 to the 10 epochs. Received: -1.0"),
        (["train", "--warmup=inf"], "warmup must be from 0 to the 10 epochs. Received: inf"),
        (["train", "--warmup=nan"], "warmup must be from 0 to the 10 epochs. Received: nan"),
        (["train", "--seed=99999999999999999999"], "A seed must be from 0 to 2147483647."),
        (["train", "--dataset=fashion_mnist", "--data-dir=~nobody-here/x"], "data_dir can't be"),
        (["train", "--strategy=horovod"], "Unknown strategy 'horovod'. Known: none, mirrored,"),
        (["train", "--strategy=mirrored"], "finds no GPU. To try it without, --replicas=2"),
        (["train", "--strategy=multiworker"], "needs TF_CONFIG in the environment of each process"),
        (["train", "--strategy=parameter_server"], 'as in TF_CONFIG=\'{"cluster": {"chief": ["'),
        (["train", "--strategy=tpu"], "finds no TPU on this machine"),
        (["optimizers", "adamww"], "No optimizer's name fits 'adamww'. Did you mean AdamW"),
        (["optimizers", "adam", "lion"], "optimizers takes one pattern. Received: adam lion"),
        (["train", "--replicas=2"], "replicas is of the strategy mirrored"),
        (["train", "--strategy=mirrored", "--replicas=2", "--batch-size=33"], "multiple of their"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "argument, words",
    [
        ("momentum=0.9", "AdamW has no argument 'momentum'. Known: learning_rate, weight_decay,"),
        ("weight_decay", "An argument looks like name=value. Received: 'weight_decay'"),
        ("weight_decay=-1", "`weight_decay` must be a finite number >= 0"),
        ("beta_1=high", "`beta_1` must be a number in [0, 1)"),
        ("decay_mask=matrix", "`decay_mask` must be None, one of everything,"),
        ("decay_mask=('nomatch',)", "AdamW: Decay mask patterns that match no variable: ['nomat"),
        ("gradient_accumulation_steps=1000", "must be at most the 390 batches of the run."),
        ("gradient_accumulation_steps=-1", "AdamW: `gradient_accumulation_steps` must be"),
        ("learning_rate=1e39", "in float32. Received: AdamW(learning_rate=1e+39)"),
        ("learning_rate=[1]", "AdamW needs a rate for its schedule"),
    ],
)
def test_a_wrong_argument_of_an_optimizer_gets_one_line(capsys, tmp_path, argument, words):
    assert words in refusal(capsys, "train", f"--out={tmp_path}/out", "--set", argument)


def test_a_folder_that_cannot_be_written_gets_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for verb in ("sweep", "train"):
        line = refusal(capsys, verb, "--out", tmp_path / "file" / "out")
        assert str(tmp_path / "file" / "out") in line


def test_unreadable_data_gets_one_line(capsys, tmp_path):
    for verb in ("sweep", "train"):
        out = f"--out={tmp_path}/{verb}"
        line = refusal(capsys, verb, out, "--dataset=fashion_mnist", f"--data-dir={tmp_path}/no")
        assert f"{tmp_path}/no" in line


def test_a_batch_larger_than_the_data_gets_one_line(capsys, tmp_path):
    for verb in ("sweep", "train"):
        line = refusal(capsys, verb, f"--out={tmp_path}/{verb}", "--batch-size=5001")
        assert "batch_size must be at most the 5000 training images" in line


def test_plot_of_no_csv_gets_one_line(capsys, tmp_path):
    assert "can't be read: No such file" in refusal(capsys, "plot", f"--csv={tmp_path}/no.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "isn't the CSV of a sweep" in refusal(capsys, "plot", f"--csv={tmp_path}/other.csv")


@pytest.mark.parametrize(
    "error, code, words",
    [
        (WorkerError("A worker process was killed by signal 9."), 1, "killed by signal 9"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_a_sweep_that_stops_says_that_the_same_command_continues(
    capsys, monkeypatch, error, code, words
):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(app, "sweep", stop)
    found, _, stderr = run(capsys, "sweep")
    assert found == code
    assert words in stderr
    assert app.SAVED in stderr


def test_a_run_whose_peer_has_gone_says_that_the_same_command_continues(capsys, monkeypatch):
    def stop(*_, **__):
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: ...")

    monkeypatch.setattr(app, "train", stop)
    code, _, stderr = run(capsys, "train")
    assert code == 1
    assert stderr.split("\n")[1:3] == [
        "tf-decoupled: Another process of the cluster has gone.",
        app.SAVED,
    ]


def test_flags_override_the_preset_and_l2s_override_lambdas(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(app, "sweep", lambda *arguments, **_: seen.append(arguments))
    run(capsys, "sweep", "--epochs=3", "--lambdas=0,0.1", "--l2s", "0.2:0.8", "--data-dir=a-b")
    settings, out, workers = seen[0]
    assert (settings.epochs, settings.batch_size, settings.data_dir) == (3, 128, "a-b")
    assert (settings.weight_decays, settings.l2s) == ((0, 0.1), (0.2, 0.4, 0.8))
    assert (str(out), workers) == ("sweep", None)


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "tf_decoupled", "sweep", "--optimizer=nope"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Unknown optimizer 'nope'" in ended.stderr.splitlines()[-1]
