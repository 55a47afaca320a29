"""Bars as long as the accuracies, read back from the drawing."""

import numpy as np
import pytest
from made_up_accuracy import made_up
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from featdiff.analyses.accuracy.figures import accuracy_bars

MODELS = ("base", "sft", "rl")
TABLE = {
    "caesar": {model: made_up(value, role="train") for model, value in zip(MODELS, (0.2, 0.6, 0.5), strict=True)},
    "sorting": {model: made_up(value) for model, value in zip(MODELS, (0.5, 0.5, 0.7), strict=True)},
}


def test_each_bar_is_as_long_as_its_accuracy() -> None:
    (axes,) = accuracy_bars(TABLE, MODELS).axes

    assert [bar.get_width() for bar in bars(axes)] == pytest.approx([20, 60, 50, 50, 50, 70])


def test_intervals_and_the_constant_answer_are_drawn() -> None:
    (axes,) = accuracy_bars({"sorting": TABLE["sorting"]}, MODELS).axes
    lines = [drawn for line in axes.lines if (drawn := xs(line))]

    assert lines[:2] == [[pytest.approx(45.0), pytest.approx(55.0)]] * 2
    assert lines[3] == [25.0, 25.0]


def test_the_axis_has_words_units_and_n() -> None:
    (axes,) = accuracy_bars(TABLE, MODELS).axes

    assert axes.get_xlabel() == "accuracy, %"
    assert axes.get_yticklabels()[0].get_text() == "caesar\ntrain, n = 400"


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_width() > 0]


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()
