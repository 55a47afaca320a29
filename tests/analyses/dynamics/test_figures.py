"""Cells coloured by direction and distance; blanks are empty and counted."""

from dataclasses import replace

import pytest
from matplotlib.colors import to_rgb, to_rgba

from featdiff.analyses.dynamics.figures import rank_shifts
from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.presentation.style import BLUE, INK, ORANGE
from featdiff.report.data import ReportData


@pytest.fixture
def panel(study: ReportData) -> DynamicsPanel:
    return replace(study.dynamics[0], checkpoints=["sft-1", "sft-2"], rank_shift=[[0, 3, -1, None]])


def test_climbing_falling_staying_and_leaving_look_different(panel: DynamicsPanel) -> None:
    (axes,) = rank_shifts(panel).axes
    stays, climbs, falls, leaves = axes.patches

    assert [to_rgb(patch.get_facecolor()) for patch in (stays, climbs, falls)] == [
        to_rgb(INK),
        to_rgb(BLUE),
        to_rgb(ORANGE),
    ]
    assert to_rgba(leaves.get_facecolor())[3] == 0


def test_a_longer_way_is_a_fuller_colour(panel: DynamicsPanel) -> None:
    (axes,) = rank_shifts(panel).axes
    stays, climbs, falls, _ = (to_rgba(patch.get_facecolor())[3] for patch in axes.patches)

    assert stays < falls < climbs == 1.0


def test_features_that_left_are_counted_beside_the_row(panel: DynamicsPanel) -> None:
    (axes,) = rank_shifts(panel).axes

    assert [text.get_text() for text in axes.texts] == ["1 left"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 → 2"]
