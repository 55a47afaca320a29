"""Histograms of scores: bars are the counts, cuts carry their tails."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from featdiff.analyses.ownership.figures_specificity import specificity_histogram
from featdiff.presentation.style import ORANGE
from featdiff.report.data import ReportData


def test_bars_are_the_counts_on_a_log_axis(study: ReportData) -> None:
    panel = study.specificity[0]
    (axes,) = specificity_histogram(panel, ORANGE, largest=max(panel.counts)).axes

    assert [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)] == panel.counts
    assert axes.get_yscale() == "log"


def test_each_cut_says_how_many_features_lie_beyond_it(study: ReportData) -> None:
    panel = replace(study.specificity[0], tails={"0.8": 1234, "0.9": 7})
    (axes,) = specificity_histogram(panel, ORANGE, largest=100).axes

    assert [text.get_text() for text in axes.texts] == ["1,234 above 0.8", "7 above 0.9"]
    assert [xs(line)[0] for line in axes.lines[1:]] == [0.8, 0.9]


def test_the_title_says_how_many_features_are_alive(study: ReportData) -> None:
    (axes,) = specificity_histogram(study.specificity[0], ORANGE, largest=100).axes

    assert axes.get_title(loc="left") == "sft (n = 1,900 alive features)"


def test_equal_shares_are_marked_where_the_number_of_models_puts_them(study: ReportData) -> None:
    pair, joint = study.specificity[0], study.specificity[2]

    for panel, equal in ((pair, 1 / 2), (joint, 1 / 3)):
        (axes,) = specificity_histogram(panel, ORANGE, largest=100).axes
        assert xs(axes.lines[0])[0] == pytest.approx(equal)


def test_panels_side_by_side_share_one_axis(study: ReportData) -> None:
    limits = {specificity_histogram(panel, ORANGE, largest=300).axes[0].get_ylim() for panel in study.specificity[:2]}

    assert len(limits) == 1


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()
