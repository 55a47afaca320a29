"""Figures 8-11: how far the most specific features move in rank from one checkpoint to the next."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featdiff.analyses.dynamics.result import DynamicsPanel
from featdiff.presentation.style import BLUE, INK, LINE, ORANGE, TITLE, canvas, fitted, styled
from featdiff.presentation.words import Number, Unknown

FAINTEST = 0.12
"""Opacity of a feature that keeps its rank, so that it differs from a blank."""


@styled
def rank_shifts(panel: DynamicsPanel) -> Figure:
    """A row for each two adjacent checkpoints, a cell for each of the earlier one's top k; blank: left the top k."""
    k = max(len(row) for row in panel.rank_shift)
    figure, axes = canvas(1.35 + 0.34 * len(panel.rank_shift))
    for row, shifts in enumerate(panel.rank_shift):
        _row(axes, row, shifts, k)
    axes.set_xlim(0.5, k + 0.5)
    axes.set_ylim(len(panel.rank_shift) - 0.5, -0.5)
    axes.set_yticks(range(len(panel.rank_shift)), _transitions(panel.checkpoints))
    axes.set_xlabel(f"rank at the earlier checkpoint, 1 to {k}")
    axes.set_title(fitted(f"{panel.paradigm}, {panel.alignment}: rank shifts of the top {k}", TITLE))
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    _legend(figure, k)
    return figure


def _row(axes: Axes, row: int, shifts: Sequence[Unknown], k: int) -> None:
    for column, shift in enumerate(shifts, start=1):
        corner = (column - 0.44, row - 0.4)
        if shift is None:
            axes.add_patch(Rectangle(corner, 0.88, 0.8, facecolor="none", edgecolor=LINE, linewidth=0.6))
        else:
            axes.add_patch(Rectangle(corner, 0.88, 0.8, color=_colour(shift), alpha=_opacity(shift, k), linewidth=0))
    left = sum(shift is None for shift in shifts)
    axes.annotate(f"{left} left", (1.01, row), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)


def _colour(shift: Number) -> str:
    if shift == 0:
        return INK
    return BLUE if shift > 0 else ORANGE


def _opacity(shift: Number, k: int) -> float:
    """Half the list is far enough for full colour."""
    return min(1.0, FAINTEST + (1 - FAINTEST) * 2 * abs(shift) / k)


def _transitions(checkpoints: Sequence[str]) -> list[str]:
    """ "1 → 2" for sft-1 and sft-2; whole names where they do not end so."""
    short = [name.rpartition("-")[2] for name in checkpoints]
    return [f"{now} → {later}" for now, later in pairwise(short)]


def _legend(figure: Figure, k: int) -> None:
    handles = [
        Rectangle((0, 0), 1, 1, color=BLUE, label="climbed"),
        Rectangle((0, 0), 1, 1, color=ORANGE, label="fell"),
        Rectangle((0, 0), 1, 1, color=INK, alpha=FAINTEST, label="same rank"),
        Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=LINE, label=f"left the top {k}"),
    ]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=4,
        frameon=False,
        handlelength=1,
        columnspacing=1.2,
        fontsize=8.5,
    )
