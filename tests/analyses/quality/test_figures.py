"""One dot for each model and measure."""

import numpy as np
import pytest
from matplotlib.lines import Line2D

from featdiff.analyses.quality.figures import Row, quality_dots
from featdiff.run.results import HeldOutFit

FIT = HeldOutFit({"base": 0.9, "rl": 0.8}, 12.0, 0.1, 1000, {"base": 0.95, "rl": None}, {"base": 0.9, "rl": None})
ROWS: list[Row] = [("joint", "held-out corpus", FIT), ("joint", "evaluation prompts", FIT)]


def test_dots_lie_at_the_shares_of_their_row() -> None:
    (axes,) = quality_dots(ROWS[:1]).axes
    explained, recovered = axes.lines[:2]

    assert xs(explained) == pytest.approx([90, 80]) and xs(recovered) == pytest.approx([95])


def test_rows_are_named_by_crosscoder_and_text() -> None:
    (axes,) = quality_dots(ROWS).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "joint\nheld-out corpus",
        "joint\nevaluation prompts",
    ]


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()
