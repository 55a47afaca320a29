"""Histograms: bars are the counts, lines the cuts, the grey ground the control."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_ownership import attribution, made_up
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from featdiff.analyses.ownership.figures import attribution_histogram, scaling_histogram, specificity_histogram
from featdiff.analyses.ownership.result import NuHistogram, Ownership
from featdiff.presentation.style import ORANGE

FOUND = made_up()


def with_nu(control: tuple[float, float] | None) -> Ownership:
    rl = replace(FOUND.of["rl"], nu=NuHistogram((4, 3, 1), (10, 200, 30), control))
    return replace(FOUND, of=FOUND.of | {"rl": rl})


def bars(axes: Axes) -> list[float]:
    return [
        bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle) and "random" not in str(bar.get_label())
    ]


def points(line: Line2D, axis: int) -> list[float]:
    return np.asarray(line.get_data()[axis], dtype=float).tolist()


def test_bars_of_scores_are_the_counts_on_a_log_axis() -> None:
    (axes,) = specificity_histogram(FOUND, "rl", ORANGE, largest=100).axes
    assert bars(axes) == list(FOUND.of["rl"].specificity.counts) and sum(bars(axes)) == 6
    assert axes.get_yscale() == "log" and axes.get_title(loc="left") == "rl (n = 6 alive features)"


def test_each_cut_says_how_many_features_lie_beyond_it_and_equal_shares_are_marked() -> None:
    (axes,) = specificity_histogram(FOUND, "rl", ORANGE, largest=100).axes
    assert [text.get_text() for text in axes.texts] == ["5 above 0.8", "2 above 0.9"]
    assert [points(line, 0)[0] for line in axes.lines] == [0.5, 0.8, 0.9]
    three = replace(FOUND, models=("base", "sft", "rl"))
    (axes,) = specificity_histogram(three, "rl", ORANGE, largest=100).axes
    assert points(axes.lines[0], 0)[0] == pytest.approx(1 / 3) and "MAS" in axes.get_xlabel()


def test_panels_side_by_side_share_one_axis() -> None:
    limits = {specificity_histogram(FOUND, model, ORANGE, largest=300).axes[0].get_ylim() for model in ("base", "rl")}
    assert len(limits) == 1


def test_an_attribution_is_drawn_without_a_run() -> None:
    (axes,) = attribution_histogram(attribution(), "rl", cuts=(0.9,)).axes
    assert bars(axes) == list(FOUND.of["rl"].specificity.counts)
    assert [text.get_text() for text in axes.texts] == ["2 above 0.9"]


def test_bars_of_nu_are_the_tail_and_steps_all_other_features() -> None:
    (axes,) = scaling_histogram(with_nu(None), "joint", "rl", ORANGE).axes
    assert bars(axes) == [4, 3, 1] and points(axes.lines[0], 1)[:3] == [10, 200, 30]
    assert axes.get_title(loc="left") == "rl in joint (n = 8 above 0.8)"
    assert points(axes.lines[1], 0) == [0.1, 0.1]  # the largest nu of what counts as absent


def test_the_ground_spans_the_control() -> None:
    def grounds(control: tuple[float, float] | None) -> list[tuple[float, float]]:
        (axes,) = scaling_histogram(with_nu(control), "joint", "rl", ORANGE).axes
        found = [one for one in axes.patches if isinstance(one, Rectangle) and "random" in str(one.get_label())]
        return [(one.get_x(), one.get_width()) for one in found]

    assert grounds((0.01, 0.07)) == [pytest.approx((0.01, 0.06))] and grounds(None) == []
