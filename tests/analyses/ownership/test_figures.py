"""The histogram of nu: bars are the tail, the ground is the control, the line is the cut."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from featdiff.analyses.ownership.figures import scaling_histogram
from featdiff.analyses.ownership.result import TailPanel
from featdiff.attribution import ScaledTail
from featdiff.presentation.style import ORANGE

PANEL = TailPanel(
    lineup="joint",
    model="rl",
    sparsity="L1",
    tails=[ScaledTail("rl", 0.8, 9, 4, 3, 1, 1, 0.9, 0.8)],
    peer=None,
    edges=[0.0, 0.5, 1.0, 1.5],
    beyond=[4, 3, 1],
    others=[10, 200, 30],
    control=(0.01, 0.07),
    max_error=0.1,
    max_reconstruction=0.5,
    tokens=1000,
    min_active=100,
)


def rectangles(panel: TailPanel) -> dict[bool, list[Rectangle]]:
    """The ground of the control under True, the bars under False."""
    (axes,) = scaling_histogram(panel, ORANGE).axes
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return {
        is_ground: [r for r in found if ("random" in str(r.get_label())) == is_ground] for is_ground in (True, False)
    }


def points(line: Line2D, axis: int) -> list[float]:
    return np.asarray(line.get_data()[axis], dtype=float).tolist()


def test_bars_are_the_tail_and_steps_all_other_features() -> None:
    (axes,) = scaling_histogram(PANEL, ORANGE).axes
    assert [bar.get_height() for bar in rectangles(PANEL)[False]] == [4, 3, 1]
    assert points(axes.lines[0], 1)[:3] == [10, 200, 30]
    assert axes.get_title(loc="left") == "rl in joint (n = 8 above 0.8)"


def test_the_line_is_the_cut_and_the_ground_spans_the_control() -> None:
    (axes,) = scaling_histogram(PANEL, ORANGE).axes
    assert points(axes.lines[1], 0) == [0.1, 0.1]
    (ground,) = rectangles(PANEL)[True]
    assert (ground.get_x(), ground.get_width()) == pytest.approx((0.01, 0.06))
    assert rectangles(replace(PANEL, control=None))[True] == []
