"""Bars as long as the accuracies, read back from the drawing."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from featdiff.analyses.accuracy.figures import accuracy_bars
from featdiff.report.data import AccuracyCell, ReportData

MODELS = ("base", "sft", "rl")


def test_each_bar_is_as_long_as_its_accuracy(study: ReportData) -> None:
    (axes,) = accuracy_bars(study.accuracy, MODELS).axes
    widths = [bar.get_width() for bar in bars(axes)]

    assert widths == pytest.approx([100 * cell.value for cells in study.accuracy.values() for cell in cells.values()])


def test_intervals_and_the_constant_answer_are_drawn() -> None:
    cells = {model: AccuracyCell(0.5, 400, [0.45, 0.55], 0.25, "far") for model in MODELS}
    (axes,) = accuracy_bars({"sorting": cells}, MODELS).axes
    lines = [drawn for line in axes.lines if (drawn := xs(line))]

    assert lines[:3] == [[pytest.approx(45.0), pytest.approx(55.0)]] * 3
    assert lines[3] == [25.0, 25.0]


def test_the_axis_has_words_units_and_n(study: ReportData) -> None:
    (axes,) = accuracy_bars(study.accuracy, MODELS).axes

    assert axes.get_xlabel() == "accuracy, %"
    assert axes.get_yticklabels()[0].get_text() == "caesar\ntrain, n = 400"


def test_a_model_that_was_not_evaluated_has_no_bar() -> None:
    cells = {"base": AccuracyCell(0.5, 400, [0.45, 0.55], 0.25, "far")}
    (axes,) = accuracy_bars({"sorting": cells}, MODELS).axes

    assert len(bars(axes)) == 1


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_width() > 0]


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()
