"""How well the crosscoders fit: variance explained and cross-entropy recovered, per model."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featdiff.presentation.style import BLUE, LINE, ORANGE, canvas, fitted, styled
from featdiff.run.results import HeldOutFit, Shares

Row = tuple[str, str, HeldOutFit]
"""Name of a crosscoder, text, and its fit there."""


@styled
def quality_dots(rows: Sequence[Row]) -> Figure:
    """A row for each crosscoder and text, a dot for each model; the axis begins below the worst of them."""
    figure, axes = canvas(1.2 + 0.42 * len(rows))
    for row, (_, _, fit) in enumerate(rows):
        _dots(axes, row - 0.13, fit.variance_explained, BLUE, "o")
        _dots(axes, row + 0.13, fit.ce_recovered or {}, ORANGE, "^")
    axes.set_yticks(range(len(rows)), [f"{fitted(name)}\n{text}" for name, text, _ in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("share, % (100 is a perfect fit)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    _legend(figure, axes)
    return figure


def _dots(axes: Axes, y: float, shares: Shares, colour: str, marker: str) -> None:
    measured = [100 * share for share in shares.values() if share is not None]
    axes.plot(measured, [y] * len(measured), marker, color=colour, markersize=5, alpha=0.85)


def _legend(figure: Figure, axes: Axes) -> None:
    (variance,) = axes.plot([], [], "o", color=BLUE, label="variance explained")
    (recovered,) = axes.plot([], [], "^", color=ORANGE, label="cross-entropy recovered")
    figure.legend(handles=[variance, recovered], loc="outside upper left", ncols=2, frameon=False)
