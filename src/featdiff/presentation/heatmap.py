"""Figures 2 and 4: a square of shares, shaded by value up to 1 and written into the cells."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from featdiff.presentation.style import INK, LINE, PAPER, TITLE, canvas, fitted, styled
from featdiff.presentation.words import Unknown

DARK_CELL = 0.72
"""Cells above this share carry paper-coloured text."""


GAP = 0.35
"""Between the square and what stands beside it."""


@styled
def share_heatmap(
    shares: Sequence[Sequence[Unknown]],
    names: Sequence[str],
    colour: str,
    title: str,
    axis: str,
    *,
    beside: Mapping[str, Sequence[Unknown]] = MappingProxyType({}),
) -> Figure:
    """One cell for each two names; `axis` says what the names are. `beside` holds further columns, by their label."""
    labels = [fitted(name, 16) for name in names]
    longest = max(len(name) for name in names)
    figure, axes = canvas(1.5 + 0.42 * len(names) + 0.05 * min(longest, 16))
    for row, cells in enumerate(shares):
        for column, share in enumerate(cells):
            _cell(axes, column, row, share, colour)
    places = [len(names) + GAP + number for number in range(len(beside))]
    for place, column in zip(places, beside.values(), strict=True):
        for row, share in enumerate(column):
            _cell(axes, place, row, share, colour)
    axes.set_xlim(-0.5, (places[-1] if places else len(names) - 1) + 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    tilted = longest > 6
    axes.set_xticks(
        [*range(len(names)), *places],
        [*labels, *beside],
        rotation=35 if tilted else 0,
        ha="right" if tilted else "center",
    )
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel(axis)
    axes.set_title(fitted(title, TITLE))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _cell(axes: Axes, x: float, y: int, share: Unknown, colour: str) -> None:
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor=LINE, linewidth=0.6))
    if share is None:
        axes.text(x, y, "–", ha="center", va="center", color=INK)
        return
    if share > 0:
        axes.add_patch(
            Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, color=colour, alpha=min(1.0, float(share)), linewidth=0)
        )
    axes.text(x, y, f"{share:.2f}", ha="center", va="center", color=PAPER if share > DARK_CELL else INK)
