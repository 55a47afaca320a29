"""One dot for each model and measure."""

import numpy as np
import pytest
from matplotlib.lines import Line2D

from featdiff.analyses.quality.figures import quality_dots
from featdiff.report.data import ReportData


def test_dots_lie_at_the_shares_of_their_row(study: ReportData) -> None:
    row = study.quality[0]
    (axes,) = quality_dots([row]).axes
    explained, recovered = axes.lines[:2]

    assert xs(explained) == pytest.approx([100 * share for share in row.variance_explained.values() if share])
    assert xs(recovered) == pytest.approx([100 * share for share in row.ce_recovered.values() if share])


def test_rows_are_named_by_crosscoder_and_text(study: ReportData) -> None:
    (axes,) = quality_dots(study.quality).axes

    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["joint\nheld-out corpus", "joint\nprompts"]


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()
