"""The heat maps: what is drawn where."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.patches import Ellipse, Rectangle

from tf_decoupled.experiments import figures
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Settings
from tf_decoupled.experiments.results import DIVERGED, Outcome

ALPHAS, LAMBDAS = (0.001, 0.002, 0.004), (0.0, 0.01, 0.02, 0.04, 0.08)


def sweep(alphas=ALPHAS, lambdas=LAMBDAS, schedules=("cosine",), seeds=(0, 1)):
    chosen = Settings(
        alphas=alphas, l2s=lambdas, weight_decays=lambdas, schedules=schedules, seeds=seeds
    )
    errors = np.random.default_rng(0).uniform(0.1, 0.3, (len(chosen.cells()), 2))
    return chosen, {c: Outcome(0.1, *e) for c, e in zip(chosen.cells(), errors, strict=True)}


def panels(chosen, outcomes):
    figure = figures.heat_maps(chosen, outcomes)
    return [ax for ax in figure.axes if ax.get_title()]


def rings(ax):
    return {tuple(map(float, p.center)) for p in ax.patches if isinstance(p, Ellipse)}


def test_one_schedule_has_its_forms_side_by_side_and_three_have_them_in_rows():
    titles = [ax.get_title() for ax in panels(*sweep())]
    assert titles == ["Adam + L2, cosine annealing", "AdamW, cosine annealing"]
    axes = panels(*sweep(schedules=("fixed", "drop", "cosine")))
    rows = [ax.get_subplotspec().rowspan.start for ax in axes]
    columns = [ax.get_subplotspec().colspan.start for ax in axes]
    assert (rows, columns) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    assert axes[5].get_title() == "AdamW, cosine annealing"


def test_the_rate_goes_up_and_the_decay_to_the_right_with_zero_apart():
    ax = panels(*sweep())[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.001", "0.002", "0.004"]
    assert ax.get_ylim()[0] < ax.get_ylim()[1]
    steps = np.diff(ax.get_xticks())
    assert steps[1:] == pytest.approx(1)
    assert steps[0] > 1.2
    assert ax.get_xticklabels()[0].get_text() == "0"


def test_without_lambda_zero_nothing_is_apart():
    ax = panels(*sweep(lambdas=(0.01, 0.02)))[0]
    assert list(ax.get_xticks()) == [0, 1]


def test_the_best_cells_by_validation_are_circled_in_every_panel():
    chosen, outcomes = sweep()
    for ax, form in zip(panels(chosen, outcomes), ("coupled", "decoupled"), strict=True):
        best = sorted(
            (c for c in chosen.cells() if c.form in (form, "both")),
            key=lambda c: sum(outcomes[c._replace(seed=s)].validation_error for s in (0, 1)),
        )[: 2 * figures.CIRCLED]
        expected = {
            (ax.get_xticks()[LAMBDAS.index(c.lam)], float(ALPHAS.index(c.alpha))) for c in best
        }
        assert rings(ax) == expected


def test_a_diverged_cell_is_hatched_without_a_number_or_a_circle():
    chosen, outcomes = sweep(alphas=(0.001,), lambdas=(0.01, 0.02), seeds=(0,))
    diverged = chosen.cells()[1]
    ax = panels(chosen, outcomes | {diverged: DIVERGED})[0]
    boxes = [p for p in ax.patches if isinstance(p, Rectangle)]
    assert [bool(box.get_hatch()) for box in boxes] == [False, True]
    assert [bool(text.get_text()) for text in ax.texts] == [True, False]
    assert rings(ax) == {(0.0, 0.0)}


def test_equal_errors_have_equal_colours_in_all_panels():
    chosen, outcomes = sweep(alphas=(0.001,), lambdas=(0.01, 0.02), seeds=(0,))
    errors = [0.1, 0.2, 0.2, 0.3]
    outcomes = {c: Outcome(0.1, e, e) for c, e in zip(chosen.cells(), errors, strict=True)}
    left, right = (
        [p.get_facecolor() for p in ax.patches if isinstance(p, Rectangle)]
        for ax in panels(chosen, outcomes)
    )
    assert left[1] == right[0] != left[0]


@pytest.mark.parametrize("slope", [-2.0, -1.0, 0.0])
def test_a_line_goes_through_the_best_decay_of_every_rate_as_far_as_the_map_goes(slope):
    chosen, _ = sweep(lambdas=LAMBDAS[1:])
    bottom = {a: 0.03 * (a / 0.002) ** slope for a in ALPHAS}
    errors = {c: 0.1 * np.exp(np.log2(c.lam / bottom[c.alpha]) ** 2) for c in chosen.cells()}
    x, y = (
        panels(chosen, {c: Outcome(0.1, e, e) for c, e in errors.items()})[1].lines[-1].get_data()
    )
    best = 0.03 * 2 ** (slope * (y - 1))
    inside = (best > 0.01) & (best < 0.08)
    assert 0.01 * 2 ** x[inside] == pytest.approx(best[inside])
    assert np.isnan(x[~inside]).all()
    assert inside.all() == (slope > -2)


@pytest.mark.parametrize("form", [{}, {"alphas": (0.1,)}, {"lambdas": (0.0,)}])
def test_the_picture_is_written_whatever_the_grid(tmp_path, form):
    chosen, outcomes = sweep(**form)
    for number, found in enumerate((outcomes, dict.fromkeys(outcomes, DIVERGED), {})):
        path = tmp_path / f"{number}.png"
        figures.draw(chosen, found, path)
        assert matplotlib.image.imread(path).std() > 0.05


def test_the_title_says_what_was_run():
    figure = figures.heat_maps(*sweep())
    title = figure.get_suptitle()
    assert all(word in title for word in ("fashion_mnist_small", "sbw16", "5 epochs", "2 seeds"))


def test_a_picture_that_cannot_be_written_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="can't be written"):
        figures.draw(*sweep(), tmp_path / "missing" / "adam.png")
